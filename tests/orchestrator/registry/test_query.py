"""Flat rows over many runs are what the files of each say, by whatever filter and in whatever
order; and pandas takes them as they are."""

from __future__ import annotations

import fnmatch
import json
import operator
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from click.testing import CliRunner

from benchmarks.registry import write_run
from mtc_core.atomic import write_json_atomic
from mtc_core.config import TranscoderSpec
from mtc_core.errors import ConfigError
from orchestrator.cli import cli
from orchestrator.registry.columns import COLUMNS, HIGHEST, RUN
from orchestrator.registry.filters import parse_filters, parse_layers
from orchestrator.registry.query import column_of, open_runs, rows
from tests.orchestrator.registry.runs import read, transcoder

ROOT = Path(__file__).parents[3]
COMPARED = ("k", "l0", "fvu", "source_layer", "tokens_per_second", "seed")
SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
         ">": operator.gt, ">=": operator.ge}  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for number in range(9):
        write_run(root, number, 3)
    return root


def naive(root: Path) -> list[dict[str, Any]]:
    """A few columns, straight from the files."""
    found = []
    for run in sorted(root.glob("run-*")):
        resolved, status = read(run / "resolved.json"), read(run / "status.json")
        splice = read(run / "evaluations" / "test" / "splice.json")
        for id, spec in resolved["specs"].items():
            evaluation = read(run / "transcoders" / id / "evaluation.json")
            found.append({
                "run": run.name, "path": str(run), "model": "gpt2", "id": id, "k": spec["k"],
                "seed": spec["seed"], "source_layer": int(spec["source"].split(".")[1]),
                "group_sizes": json.dumps(spec["group_sizes"]), "d_sae": sum(spec["group_sizes"]),
                "fvu": evaluation["ordinary"]["fvu"], "fvu_all": evaluation["all"]["fvu"],
                "l0": evaluation["ordinary"]["l0"], "dead_share": evaluation["dead_share"],
                "kl": splice["transcoders"][id]["kl"], "state": "done", "run_state": "done",
                "tokens_per_second": status["tokens_per_second"], "skip": False,
                "lr": 2e-4 / (sum(spec["group_sizes"]) / 2**14) ** 0.5,
            })  # fmt: skip
    return found


def test_rows_are_what_the_files_say(tree: Path) -> None:
    truth = naive(tree)
    for _ in range(2):  # read, and from the cache
        found = rows(tree)
        assert len(found) == 27 and all(list(row) == list(COLUMNS) for row in found)
        for row, true in zip(found, truth, strict=True):
            assert {name: row[name] for name in true} == pytest.approx(true)
    assert {row["verdict"] for row in found} <= {"good", "behind"}
    assert rows(tree / "run-0003") == [row for row in found if row["run"] == "run-0003"]
    some = rows([tree / "run-0003", str(tree / "run-0001")])
    assert [row["run"] for row in some] == ["run-0001"] * 3 + ["run-0003"] * 3


@pytest.mark.parametrize("seed", range(12))
def test_filters_and_order_are_those_of_a_slow_twin(tree: Path, seed: int) -> None:
    chance, expected = random.Random(seed), rows(tree)
    filters = []
    for _ in range(chance.randint(1, 3)):
        if chance.random() < 0.3:
            name, pattern = (
                "run",
                chance.choice(["run-000[2]", "run-*[2]", "*-0001", "run-000?", "run-0004"]),
            )
            filters.append(f"{name}={pattern}")
            exact = not set("*?") & set(pattern)
            pattern = pattern.replace("[", "[[]")  # in ours it stands for itself
            expected = [
                row
                for row in expected
                if (row[name] == pattern.replace("[[]", "[") if exact else
                    fnmatch.fnmatchcase(row[name], pattern))
            ]  # fmt: skip
            continue
        name, sign = chance.choice(COMPARED), chance.choice(list(SIGNS))
        value = chance.choice(rows(tree))[name]
        filters.append(f"{name}{sign}{value!r}")
        expected = [row for row in expected if SIGNS[sign](row[name], value)]
    by, top = chance.choice(["fvu", "kl", "ce_recovered_mean", "tokens_per_second"]), 5
    with open_runs(tree) as found:
        conditions = parse_filters(filters)
        assert found.transcoders(conditions) == expected
        best = found.transcoders(conditions, by, top)
        assert found.count(conditions, by) == len(expected)
    ordered = sorted(expected, key=lambda row: row[by], reverse=HIGHEST[by])
    assert [row[by] for row in best] == [row[by] for row in ordered[:top]]


def test_brackets_stand_for_themselves_for_lists_have_them(tree: Path) -> None:
    assert rows(tree, "run=run-*[2]") == [] and len(rows(tree, "run!=run-*[2]")) == 27
    assert len(rows(tree, "group_sizes=[768, *]")) == len(rows(tree, "group_sizes=*3072*")) == 27
    assert len(rows(tree, "group_sizes=[768, 1536, 3072, 6912]")) == 27


def test_runs_of_several_roots_are_ranked_together(tree: Path, tmp_path: Path) -> None:
    write_run(tmp_path, 40, 3)
    with open_runs([tree, tmp_path]) as found:
        best = found.transcoders([], "fvu", 7)
        assert found.count([], "fvu") == 30 and len(found.runs()) == 10
    assert [row["fvu"] for row in best] == sorted(row["fvu"] for row in rows([tree, tmp_path]))[:7]


def test_a_range_of_layers_may_be_vast_but_not_backward(tree: Path) -> None:
    with open_runs(tree) as found:
        everything = found.transcoders([parse_layers("0-99999999999999999999")])
    assert everything == rows(tree)
    with pytest.raises(ConfigError, match="--layer 2,5-3: 5-3 ends before it begins"):
        parse_layers("2,5-3")


def test_layers_are_those_of_source_or_target(tree: Path, tmp_path: Path) -> None:
    with open_runs(tree) as found:
        for text, layers in (("1", {1}), ("0-1", {0, 1}), ("0,2", {0, 2}), ("7", set())):
            chosen = {row["source_layer"] for row in found.transcoders([parse_layers(text)])}
            assert chosen == layers
    run = write_run(tmp_path, 0, 3)
    resolved = read(run / "resolved.json")
    across = list(resolved["specs"])[1]
    resolved["specs"][across]["target"] = "blocks.2.hook_mlp_out"  # reads layer 1
    write_json_atomic(run / "resolved.json", resolved)
    with open_runs(run) as found:
        for text in ("1", "2"):
            assert across in [row["id"] for row in found.transcoders([parse_layers(text)])]
    with pytest.raises(ConfigError, match=r"--layer 1-x: '1-x' is no layer; write 3, 0-5 or"):
        parse_layers("1-x")


def test_what_is_wrong_with_filters_is_told_at_once_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as told:
        parse_filters(["fvy<1", "k", "fvu=low", "state<done", "skip=maybe", "k=none",
                       "state==done"])  # fmt: skip
    assert str(told.value).splitlines() == [
        "--where 'fvy<1': there is no column fvy; did you mean \"fvu\"?",
        "--where 'k': this is no condition; write COLUMN=VALUE, or !=, <, <=, >, >= for the =",
        "--where 'fvu=low': fvu is a number, and 'low' is not",
        "--where 'state<done': state is text, which = and != compare; in it * stands for anything",
        "--where 'skip=maybe': skip is true or false, and 'maybe' is not",
        "--where 'state==done': write one = (state=done)",
    ]
    with pytest.raises(ConfigError, match='--by fvw: nothing is best by that; did you mean "fvu"'):
        column_of("fvw")


def test_what_is_not_known_is_asked_for_as_none(run: Path) -> None:
    assert [row["state"] for row in rows(run, "fvu=none")] == ["training", "failed", "waiting"]
    assert [row["state"] for row in rows(run, "fvu!=none")] == ["done"]
    assert [row["reason"] for row in rows(run, "state=failed")] == ["its loss is not finite"]
    verdict = rows(run, "state=done")[0]["verdict"]
    for word in (verdict, f"{verdict[:3]}*"):
        others = [row["state"] for row in rows(run, f"verdict!={word}")]
        assert others == ["training", "failed", "waiting"]
    assert len(rows(run, "fvu!=7")) == 4, "what is not known is not 7"
    assert rows(run, "skip=true") == [] and len(rows(run, "skip=false")) == 4


def test_pandas_takes_them_with_numbers_as_numbers(tree: Path, run: Path) -> None:
    frame = pandas.DataFrame(rows(tree))
    assert len(frame) == 27 and list(frame.columns) == list(COLUMNS)
    for name, kind in COLUMNS.items():
        if kind in (int, float) and frame[name].notna().any():
            assert pandas.api.types.is_numeric_dtype(frame[name]), name
    assert frame["skip"].dtype == bool and frame["k"].dtype.kind == "i"
    assert frame.groupby("k")["fvu"].mean().index.tolist() == [16, 32, 64, 128]
    mixed = pandas.DataFrame(rows([tree, run]))  # some of it without figures
    assert mixed["fvu"].dtype == float and mixed["fvu"].isna().sum() == 3


def test_predictions_count_only_for_the_weights_that_are_there(tmp_path: Path) -> None:
    run = write_run(tmp_path, 0, 3)
    path = run / "evaluations" / "test" / "splice.json"
    splice = read(path)
    first = rows(run)[0]["id"]
    splice["weights"][first] = "another's"
    write_json_atomic(path, splice)
    assert [row["kl"] is None for row in rows(run)] == [True, False, False]
    write_json_atomic(path, {**splice, "version": 0})
    assert {row["kl"] for row in rows(run)} == {None}


def test_a_run_that_cannot_be_read_hides_none_of_the_others(tree: Path, tmp_path: Path) -> None:
    write_run(tmp_path, 0, 3)
    (write_run(tmp_path, 1, 3) / "resolved.json").write_text("{")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_text("")
    with open_runs(tmp_path) as found:
        good, bad = found.runs()
    assert (good["run_state"], bad["run_state"]) == ("done", "unreadable")
    assert "resolved.json is damaged" in bad["run_reason"]
    assert len(rows(tmp_path)) == 3


def test_what_one_may_not_look_into_hides_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as lost+found of a disk: as root one may look into anything, so it is made up."""
    write_run(tmp_path, 0, 3)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    stat = os.stat

    def refuse(path, **options):
        if "lost+found" in str(path) or str(path).endswith("run-0000/evaluations"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr("orchestrator.registry.glance.os.stat", refuse)
    assert len(rows(tmp_path)) == 3


def test_a_seed_of_many_digits_is_found_and_no_figure_is_infinite(tmp_path: Path) -> None:
    run, seed = write_run(tmp_path, 0, 1), 9007199254740993  # no float
    resolved = read(run / "resolved.json")
    ((id, spec),) = resolved["specs"].items()
    renamed = TranscoderSpec.from_dict({**spec, "seed": seed}).id
    specs = {renamed: {**spec, "seed": seed}}
    write_json_atomic(run / "resolved.json", {**resolved, "specs": specs})
    (run / "transcoders" / id).rename(run / "transcoders" / renamed)
    metrics = run / "transcoders" / renamed / "metrics.jsonl"
    metrics.write_text('{"step": 1, "tokens": 2, "fvu": Infinity, "l0": 3.0}\n')
    (found,) = rows(tmp_path, f"seed={seed}")
    assert found["seed"] == seed and found["batch_fvu"] is None
    assert rows(tmp_path, f"seed={seed - 1}") == []


def test_columns_of_runs_sum_up_their_transcoders(run: Path) -> None:
    with open_runs(run) as found:
        (row,) = found.runs()
    assert list(row) == list(RUN) and row["path"] == str(run)
    assert (row["transcoders"], row["done"], row["failed"]) == (4, 1, 1)
    evaluation = read(transcoder(run, 0) / "evaluation.json")
    assert row["mean_fvu"] == evaluation["ordinary"]["fvu"]
    assert (row["run_state"], row["run_step"], row["steps"]) == ("stopped", 12, 20)


def test_no_run_is_one_message(tmp_path: Path) -> None:
    assert rows(tmp_path) == []
    with pytest.raises(ConfigError, match="nowhere: no run folder, and no folder that holds any"):
        rows(tmp_path / "nowhere")


def test_asking_loads_neither_torch_nor_ray_and_from_a_cache_no_manifest_either(
    tree: Path,
) -> None:
    code = (
        "import sys; from orchestrator.registry.query import rows; rows(sys.argv[1]); "
        "print({'torch', 'ray', 'pydantic', 'rich'} & set(sys.modules))"
    )
    rows(tree)
    asked = [sys.executable, "-c", code, str(tree)]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize(("section", "key", "value"), [
    ("train", "batch_tokens", 0), ("train", "extreme", ["mask"]), ("train", "extreme", {"a": 1}),
])  # fmt: skip
def test_a_run_edited_by_hand_hides_none_of_the_others(
    run: Path, section: str, key: str, value: object
) -> None:
    shutil.copytree(run, run.parent / "other")
    resolved = read(run / "resolved.json")
    write_json_atomic(
        run / "resolved.json", {**resolved, section: resolved[section] | {key: value}}
    )
    for words in (["list"], ["best"]):
        shown = CliRunner().invoke(cli, [*words, "--root", str(run.parent)])
        assert shown.exit_code == 0 and "other" in shown.output, shown.output
