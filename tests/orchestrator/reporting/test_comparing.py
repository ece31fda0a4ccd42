"""Stars stand where runs can be compared, and nowhere else; and nothing is out of the picture."""

import json
import shutil

import pytest

from orchestrator.reporting.comparing import compare
from orchestrator.reporting.gather import gather
from tests.orchestrator.reporting.pages import figures_of, words_of


@pytest.fixture
def two(finished, tmp_path):
    """A real run, and a copy with a better first transcoder and a better joint figure."""
    other = shutil.copytree(finished, tmp_path / "other" / "small")
    path = sorted(other.glob("transcoders/*/evaluation.json"))[0]
    one = json.loads(path.read_text())
    one["ordinary"]["fvu"] *= 0.5
    path.write_text(json.dumps(one))
    return finished, other


def page(runs) -> str:
    return compare([gather(run) for run in runs])


def change(run, section, **values):
    resolved = json.loads((run / "resolved.json").read_text())
    resolved[section] |= values
    (run / "resolved.json").write_text(json.dumps(resolved))


def test_runs_on_the_same_text_are_compared(two):
    words = words_of(page(two))
    assert "★" in words and "Not comparable" not in words
    assert "over the 3 pairs of source and target" in words


@pytest.mark.parametrize(("section", "values", "told"), [
    ("data", {"context_tokens": 64}, "data.context_tokens (32 | 64)"),
    ("pins", {"model": "another"}, "model commit"),
])  # fmt: skip
def test_what_makes_figures_incomparable_is_said_and_nothing_is_best(two, section, values, told):
    change(two[1], section, **values)
    words = words_of(page(two))
    assert f"Not comparable: they differ in {told}" in words and "★" not in words


def test_means_are_over_what_all_of_them_have_done(two):
    """Else the one that has only its easy transcoders would be the better one."""
    gone = sorted(two[1].glob("transcoders/*"))[-1]
    shutil.rmtree(gone)
    runs = [gather(run) for run in two]
    words = words_of(page(two))
    shared = [id for id in runs[0].evaluated if id in runs[1].evaluated]
    means = [sum(run.evaluated[id]["ordinary"]["fvu"] for id in shared) for run in runs]
    assert "what is said of them as a whole does not compare" in words
    assert means[0] > means[1]
    row = words.split("mean FVU ")[1].split(" mean FVU, all rows")[0].split()
    assert len(row) == 3 and row[1] == "★"


def test_more_than_all_recovered_is_no_better(two):
    for run, value in zip(two, (0.98, 2.022), strict=True):
        path = run / "evaluations" / "test" / "splice.json"
        splice = json.loads(path.read_text())
        if splice["joint"] is None:  # a sweep has none
            splice["joint"] = next(iter(splice["transcoders"].values()))
        splice["joint"] = {**splice["joint"], "ce_recovered_zero": value}
        path.write_text(json.dumps(splice))
    assert "CE recovered, all together ★ 0.980 2.022" in words_of(page(two))


def test_a_run_that_diverged_is_in_the_picture(two):
    for path in two[1].glob("transcoders/*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**line, "fvu": 2.5}) + "\n" for line in lines))
    found = figures_of(page(two))
    curves = [figure for key, figure in found.items() if key.startswith("curve-")]
    assert curves
    for figure in curves:
        assert figure["layout"]["yaxis"]["range"][1] > 2.5


def test_what_was_spliced_on_other_tokens_is_not_the_best_of_anything(two):
    for run, tokens in zip(two, (1024, 4096), strict=True):
        path = run / "evaluations" / "test" / "splice.json"
        splice = json.loads(path.read_text())
        joint = splice["joint"] or next(iter(splice["transcoders"].values()))
        path.write_text(json.dumps({**splice, "tokens": tokens, "joint": joint}))
    words = words_of(page(two))
    assert "of so many tokens 1,024 4,096" in words
    assert "★" not in words.split("CE +, all together")[1].split("of so many tokens")[0]
