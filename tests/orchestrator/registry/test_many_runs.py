"""`list` and `best` over many runs: tables, filters, CSV, and what is wrong told in one message."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pandas
import pytest
from click.testing import CliRunner, Result

from benchmarks.registry import write_run
from mtc_core.atomic import write_json_atomic
from orchestrator.cli import cli
from orchestrator.commands import many_view
from orchestrator.registry.columns import COLUMNS, RUN
from orchestrator.registry.query import rows
from tests.orchestrator.registry.runs import read


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for number in range(6):
        write_run(root, number, 3)
    return root


def call(tree: Path, *words: str, **environment: str) -> Result:
    env = {"COLUMNS": "200", **environment}
    return CliRunner(env=env).invoke(cli, [*words, "--root", str(tree)])


def test_list_shows_each_run_on_a_line_and_filters_by_the_rules_of_where(tree: Path) -> None:
    shown = call(tree, "list").stdout.splitlines()
    assert shown[0].split() == ["run", "state", "step", "done", "mean", "FVU"]
    assert [line.split()[0] for line in shown[1:]] == [f"{tree}/run-000{n}" for n in range(6)]
    mean = rows(tree)[0]["mean_fvu"]
    assert shown[1].split()[1:] == ["done", "1,000/1,000", "3/3", f"{mean:.3f}"]
    few = call(tree, "list", "--where", "run=*[0-3]", "--where", f"mean_fvu<={mean!r}")
    assert few.stdout == f"no runs under {tree} of which that holds\n"  # brackets are no wildcard
    few = call(tree, "list", "--where", "run=run-000?", "--where", f"mean_fvu<={mean!r}")
    assert 1 < len(few.stdout.splitlines()) < 7
    assert call(tree / "nowhere", "list").stdout == f"no runs under {tree / 'nowhere'}\n"


def test_list_as_json_has_the_whole_figures_of_the_runs_that_it_lists(tree: Path) -> None:
    (state,) = json.loads(call(tree, "list", "--json", "--where", "run=run-0002").stdout)
    run = tree / "run-0002"
    assert (state["run"], state["state"], len(state["transcoders"])) == (str(run), "done", 3)
    for row in state["transcoders"]:
        evaluation = read(run / "transcoders" / row["id"] / "evaluation.json")
        assert row["test"] == evaluation["ordinary"]


def test_csv_has_all_columns_by_rfc_4180_and_pandas_reads_them_back(tree: Path) -> None:
    (folder,) = [write_run(tree / "other", 7, 2)]
    folder = folder.rename(folder.parent / 'a "quoted", run')
    shown = call(tree / "other", "best", "--csv").stdout_bytes.decode()
    head, *lines, end = shown.split("\r\n")
    assert head == ",".join(COLUMNS) and len(lines) == 2 and end == ""
    read_back = list(csv.DictReader(io.StringIO(shown, newline="")))
    truth = sorted(rows(folder), key=lambda row: row["fvu"])
    for found, true in zip(read_back, truth, strict=True):
        assert found["run"] == 'a "quoted", run' and found["k_aux"] == ""
        assert json.loads(found["group_sizes"]) == [768, 1536, 3072, 6912]
        assert found["skip"] == "false" and float(found["fvu"]) == true["fvu"]
    frame = pandas.read_csv(io.StringIO(shown))
    assert frame["fvu"].tolist() == [row["fvu"] for row in truth] and frame["skip"].dtype == bool
    listed = call(tree, "list", "--csv").stdout.splitlines()
    assert listed[0] == ",".join(RUN) and len(listed) == 7


def test_best_ranks_by_what_is_asked_and_says_which_way(tree: Path) -> None:
    truth = rows(tree)
    shown = call(tree, "best", "--top", "4").stdout.splitlines()
    assert shown[0] == "by fvu, lower is better: the best 4 of 18 transcoders that have it"
    lowest = sorted(truth, key=lambda row: row["fvu"])[:4]
    assert [line.split()[:2] for line in shown[2:]] == [[row["id"], row["run"]] for row in lowest]
    shown = call(tree, "best", "--by", "ce_recovered", "--top", "0", "--layer", "1").stdout
    assert "by ce_recovered_mean, higher is better: 6 transcoders" in shown
    highest = sorted(truth, key=lambda row: -row["ce_recovered_mean"])
    ids = [row["id"] for row in highest if row["source_layer"] == 1]
    assert re.findall(r"^L\S+", shown, re.M) == ids
    found = json.loads(call(tree, "best", "run-0001", "--where", "k=32", "--json").stdout)
    expected = [row for row in truth if row["run"] == "run-0001"]
    assert found == sorted(expected, key=lambda row: row["fvu"])
    assert json.loads(call(tree, "best", "run-0001", "--where", "k=7", "--json").stdout) == []


def test_only_what_is_done_counts_unless_another_state_is_asked_for(run: Path) -> None:
    root = run.parent
    assert len(json.loads(call(root, "best", "--by", "batch_fvu", "--json").stdout)) == 1
    words = ("best", "--by", "batch_fvu", "--where", "state!=done", "--json")
    states = [row["state"] for row in json.loads(call(root, *words).stdout)]
    assert sorted(states) == ["failed", "training"]  # one that waits has no figure
    shown = call(root, "best", "--by", "batch_fvu", "--where", "state=training").stdout
    assert re.search(r"training$", shown.strip())


def test_mistakes_are_one_message(tree: Path) -> None:
    for words, told in (
        (("best", "--by", "fv"), '--by fv: nothing is best by that; did you mean "fvu"?'),
        (("best", "--layer", "a"), "--layer a: 'a' is no layer"),
        (("list", "--where", "fvu<1"), "there is no column fvu"),  # of a run
        (("list", "--where", "path=x"), "there is no column path"),
        (("list", "--csv", "--json"), "--json and --csv: choose one of them"),
        (("best", "nowhere"), "nowhere: no run folder here"),
        (("compare", "run-0000", "nowhere"), "nowhere: no run folder here"),
    ):
        ended = call(tree, *words)
        assert ended.exit_code == 2 and told in ended.output, ended.output
        assert "Traceback" not in ended.output


def test_a_run_that_cannot_be_read_is_named_where_it_was_asked_for(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path, number, 2)
    (tmp_path / "run-0000" / "resolved.json").write_text("{")
    for words in (("compare", "run-0000", "run-0001"), ("best", "run-0000", "run-0001", "--json")):
        ended = call(tmp_path, *words)
        assert ended.exit_code == 2 and "resolved.json is damaged" in ended.output, words
    ended = call(tmp_path, "best", "--json")
    assert ended.exit_code == 0 and len(json.loads(ended.stdout)) == 2
    assert "resolved.json is damaged" in ended.stderr
    assert "resolved.json is damaged" in call(tmp_path, "best").stdout


def test_best_says_where_figures_are_of_different_models_or_texts(tree: Path) -> None:
    assert "do not compare" not in call(tree, "best").stdout
    resolved = read(tree / "run-0001" / "resolved.json")
    try:
        other = {**resolved, "data": {**resolved["data"], "context_tokens": 64}}
        write_json_atomic(tree / "run-0001" / "resolved.json", other)
        shown = call(tree, "best", "run-0000", "run-0001").stdout
        assert "their figures do not compare: they differ in context_tokens" in shown
        assert re.search(r"transcoder +run +context_tokens", shown)
    finally:
        write_json_atomic(tree / "run-0001" / "resolved.json", resolved)


def test_reading_that_takes_long_is_told_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_run(tmp_path, number, 1)
    monkeypatch.setattr(many_view, "PATIENCE_S", 0.0)
    ended = call(tmp_path, "list")
    assert "3 runs are new or have changed: reading them  33 %" in ended.stderr
    assert "reading them" not in ended.stdout
    assert call(tmp_path, "list").stderr == ""
