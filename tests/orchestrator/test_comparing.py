"""Runs and sweeps side by side: what differs, what is best, what is in the way, the picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.registry import write_run
from mtc_core.atomic import write_json_atomic
from mtc_core.config import TranscoderSpec
from mtc_core.errors import ConfigError
from orchestrator.cli import cli
from orchestrator.comparing.comparison import LOWEST, Comparison
from orchestrator.comparing.drawing import HIGH, MARKS, draw, marks
from orchestrator.registry.query import rows
from tests.orchestrator.registry.runs import read


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(3):
        write_run(tmp_path, number, 4)
    return tmp_path


def change(run: Path, section: str, **values: Any) -> None:
    resolved = read(run / "resolved.json")
    write_json_atomic(run / "resolved.json", {**resolved, section: resolved[section] | values})


def call(tree: Path, *words: str, **environment: str) -> Result:
    env = {"COLUMNS": "200", **environment}
    return CliRunner(env=env).invoke(cli, ["compare", *words, "--root", str(tree)])


def sweep(root: Path) -> Path:
    """One run of two layers with k 16, 32, 64: transcoders of three runs in one folder."""
    run = write_run(root, 0, 2)
    resolved, splice = read(run / "resolved.json"), run / "evaluations" / "test" / "splice.json"
    for number in (1, 2):
        other = write_run(root, number, 2)
        resolved["specs"] |= read(other / "resolved.json")["specs"]
        for folder in (other / "transcoders").iterdir():
            folder.rename(run / "transcoders" / folder.name)
    write_json_atomic(run / "resolved.json", resolved)
    splice.unlink()
    return run


def test_what_runs_share_is_said_once_and_what_differs_is_a_column(tree: Path) -> None:
    change(tree / "run-0001", "train", extreme="keep", lr=3e-3)
    found = Comparison.of(rows(tree))
    assert found.common["model"] == "gpt2" and found.common["tokens"] == 8_192_000
    assert "k" not in found.common and "extreme" not in found.common
    assert found.between_series == {
        "extreme": {"run-0000": "mask", "run-0001": "keep", "run-0002": "mask"},
        "k": {"run-0000": "16", "run-0001": "32", "run-0002": "64"},
    }
    assert not found.incomparable and not found.within
    shown = call(tree, "run-0000", "run-0001").stdout
    assert re.search(r"^in common: model gpt2, dataset corpus, tokens 8,192,000", shown)
    assert re.search(r"^series +extreme +k +FVU", shown, re.M)
    assert re.search(r"^run-0001 +keep +32 ", shown, re.M)


def test_corresponding_transcoders_stand_together_with_the_lowest_marked(tree: Path) -> None:
    found = Comparison.of(rows(tree))
    pairs = [row["source_layer"] for row in found.rows]
    assert pairs == sorted(pairs) and len(pairs) == 12
    for name in LOWEST:
        for layer in range(4):
            group = [row for row in found.rows if row["source_layer"] == layer]
            least = min(row[name] for row in group)
            equal = len({row[name] for row in group}) == 1
            best = [found.is_best(row, name) for row in group]
            assert best == [row[name] == least and not equal for row in group]
    shown = [line for line in call(tree, "run-0000", "run-0001").stdout.splitlines()
             if line.startswith("L0")]  # fmt: skip
    assert len(shown) == 8 and all(
        ("*" in a) != ("*" in b) for a, b in zip(shown[::2], shown[1::2], strict=True)
    )


def test_means_are_over_the_pairs_that_all_have_done(tree: Path) -> None:
    first = next((tree / "run-0001" / "transcoders").glob("L02*"))
    (first / "final" / "sha256.json").unlink()
    (first / "final").rmdir()
    found = Comparison.of(rows(tree))
    for label, one in found.means().items():
        kept = [row for row in rows(tree / label) if row["source_layer"] != 2]
        assert one["pairs"] == len(kept) == 3
        assert one["fvu"] == pytest.approx(fmean(row["fvu"] for row in kept))
    (row,) = [row for row in found.rows if row["fvu"] is None]
    assert not any(found.is_best(row, name) for name in LOWEST)
    assert call(tree, "run-0001", "run-0002").exit_code == 0


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("model", {"name": "other"}, "model.name (gpt2 | other)"),
        ("pins", {"model": "sha256:2"}, "model commit (sha256:1 | sha256:2)"),
        ("data", {"path": "elsewhere"}, "data.path (corpus | elsewhere)"),
        ("data", {"context_tokens": 64}, "data.context_tokens (128 | 64)"),
        ("data", {"holdout_tokens": 1024}, "data.holdout_tokens (65,536 | 1,024)"),
    ],
)
def test_runs_of_other_models_and_texts_are_said_to_be_incomparable_and_nothing_is_marked(
    tree: Path, section: str, values: dict[str, Any], told: str
) -> None:
    change(tree / "run-0001", section, **values)
    shown = call(tree, "run-0000", "run-0001").stdout
    assert shown.splitlines()[0] == f"not comparable: they differ in {told}"
    assert not any("*" in part for part in shown.split("\n\n")[:-1])  # but for the picture
    as_json = json.loads(call(tree, "run-0000", "run-0001", "--json").stdout)
    assert not as_json["comparable"] and as_json["in_the_way"] == [told]


def test_another_holdout_is_in_the_way_and_another_order_of_the_text_is_not(tree: Path) -> None:
    for number, held in ((0, ["a"]), (1, ["a"]), (2, ["b"])):
        (tree / f"run-000{number}" / "tokens").mkdir()
        write_json_atomic(tree / f"run-000{number}" / "tokens" / "holdout.json", {"held": held})
    change(tree / "run-0001", "data", shuffle_tokens=7)
    assert "not comparable" not in call(tree, "run-0000", "run-0001").stdout
    assert "they differ in held-out text (" in call(tree, "run-0000", "run-0002").stdout


def test_a_sweep_is_compared_within_its_run_by_what_it_sweeps(tmp_path: Path) -> None:
    run = sweep(tmp_path)
    found = Comparison.of(rows(run))
    assert list(found.series) == ["k 16", "k 32", "k 64"] and list(found.within) == ["k"]
    shown = call(tmp_path, "run-0000").stdout
    assert re.search(r"^transcoder +k +FVU", shown, re.M)
    assert shown.splitlines()[-1].strip() == "o k 16, x k 32, + k 64"
    write_run(tmp_path, 3, 2)
    both = Comparison.of(rows([run, tmp_path / "run-0003"]))
    labels = ["run-0000, k 16", "run-0000, k 32", "run-0000, k 64", "run-0003, k 128"]
    assert list(both.series) == labels


def test_one_run_that_sweeps_nothing_is_shown_and_drawn(tree: Path) -> None:
    shown = call(tree, "run-0000").stdout
    assert "means" not in shown and "series" not in shown
    assert shown.splitlines()[-1].strip() == "o run-0000"


def test_runs_of_one_name_are_told_apart_by_their_paths(tree: Path) -> None:
    write_run(tree / "other", 0, 4)
    found = Comparison.of(rows([tree / "run-0000", tree / "other" / "run-0000"]))
    assert list(found.series) == [str(tree / "run-0000"), str(tree / "other" / "run-0000")]


def test_figures_of_different_numbers_of_tokens_are_told(tree: Path) -> None:
    path = tree / "run-0001" / "evaluations" / "test" / "splice.json"
    write_json_atomic(path, {**read(path), "tokens": 4096})
    assert "CE + and KL are of different numbers of tokens: 1,024, 4,096" in call(
        tree, "run-0000", "run-0001"
    ).stdout  # fmt: skip


def test_seeds_of_the_run_and_of_its_specs_are_one_column(tree: Path) -> None:
    """The manifest's seed is each transcoder's."""
    run = tree / "run-0001"
    resolved = read(run / "resolved.json")
    for id, plain in list(resolved["specs"].items()):
        spec = TranscoderSpec.from_dict({**plain, "seed": 5, "k": 16})
        resolved["specs"][spec.id] = spec.to_dict()
        (run / "transcoders" / id).rename(run / "transcoders" / spec.id)
        del resolved["specs"][id]
    write_json_atomic(run / "resolved.json", {**resolved, "seed": 5})
    found = Comparison.of(rows([tree / "run-0000", run]))
    assert found.between_series == {"seed": {"run-0000": "0", "run-0001": "5"}}


def test_nothing_to_compare_is_one_message(tree: Path) -> None:
    with pytest.raises(ConfigError, match="no transcoder to compare"):
        Comparison.of([])
    assert call(tree, "run-0000", "--where", "k=7").exit_code == 2


def marked(drawn: str, mark: str) -> list[tuple[int, int]]:
    """Places (row, column) of a mark inside the frame."""
    inner = [line.partition("┤")[2] or line.partition("│")[2] for line in drawn.splitlines()]
    return [(y, x) for y, line in enumerate(inner) for x, one in enumerate(line) if one == mark]


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_each_point_is_drawn_where_it_belongs(width: int) -> None:
    series = {"a": [(16.0, 0.3), (64.0, 0.1)], "b": [(32.0, 0.2)]}
    drawn = draw(series, width)
    lines = drawn.splitlines()
    assert len(lines) == HIGH and max(map(len, lines)) <= width and "\x1b" not in drawn
    (left, right), (middle,) = marked(drawn, "o"), marked(drawn, "x")
    assert left[0] < middle[0] < right[0] and left[1] < middle[1] < right[1]
    share = (middle[1] - left[1]) / (right[1] - left[1])
    assert share == pytest.approx(1 / 3, abs=0.1)  # 32 lies at a third between 16 and 64
    assert "FVU" in lines[-1] and "L0" in lines[-1]


def test_a_single_point_and_a_series_without_any_are_drawn() -> None:
    drawn = draw({"a": [], "b": [(32.0, 0.2)]}, 60)
    assert not marked(drawn, "o") and len(marked(drawn, "x")) == 1
    assert draw({"b": [(32.0, 0.2)]}, 60) != drawn  # nothing is left of the one before
    assert len(marked(draw({"b": [(32.0, 0.2)]}, 60), "o")) == 1


def test_marks_are_one_column_each_and_differ() -> None:
    assert len(set(MARKS)) == len(MARKS) >= 60 and MARKS.isascii()
    found = marks([str(number) for number in range(70)])
    assert found["0"] == found[str(len(MARKS))] and len(set(found.values())) == len(MARKS)


def test_runs_stand_in_the_order_in_which_they_were_named(tree: Path) -> None:
    shown = json.loads(call(tree, "run-0002", "run-0000", "--json").stdout)
    assert [Path(path).name for path in shown["runs"]] == ["run-0002", "run-0000"]


def test_a_run_named_twice_is_one_message(tree: Path) -> None:
    ended = call(tree, "run-0000", str(tree / "run-0000"))
    assert ended.exit_code == 2 and "is named twice" in ended.output


def test_settings_that_begin_like_a_list_are_none(tree: Path) -> None:
    names = [f"run-{number:04d}" for number in range(3)]
    for name in names:
        change(tree / name, "data", path="[draft] corpus.txt")
    shown = call(tree, *names)
    assert shown.exit_code == 0 and "[draft] corpus.txt" in shown.stdout
