"""A report knows what the files say, of every kind of run, and says what it could not read."""

import json
import shutil

import pytest

from mtc_core.errors import ConfigError
from orchestrator.evaluating.evaluate import Wanted, evaluate
from orchestrator.evaluating.listener import QUIET
from orchestrator.reporting.gather import gather
from orchestrator.run_folder.folder import RunFolder
from tests.orchestrator.registry.runs import transcoder
from tests.orchestrator.reporting.pages import fabricated_progress, page_of, set_state, words_of


def test_a_finished_run_is_all_there(finished):
    run = gather(finished)
    assert run.state == "done" and len(run.rows) == 4 and not run.complaints
    for row in run.rows:
        folder = finished / "transcoders" / row.id
        assert run.evaluated[row.id] == json.loads((folder / "evaluation.json").read_text())
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert run.curves[row.id] == [json.loads(line) for line in lines]
    splice = json.loads((finished / "evaluations/test/splice.json").read_text())
    assert run.splice == splice and run.splice_problem == ""
    (only,) = run.invocations
    assert only.ended["outcome"] == "done" and only.rows_trained == 256 * 40
    assert only.training_s > 0 and only.seconds > only.training_s
    assert run.manifest == (finished / "manifest.yaml").read_text()


def test_a_run_in_every_state_at_once(mixed):
    run = gather(mixed)
    assert [row.state for row in run.rows] == ["done", "unfinished", "failed", "unfinished"]
    assert len(run.evaluated) == 1 and run.steps == 20 and run.splice is None
    assert [len(lines) for lines in run.curves.values()] == [5, 3, 2, 0]


def test_half_a_last_line_is_passed_over_and_another_one_told(mixed):
    metrics = transcoder(mixed, 0) / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 2')
    assert len(gather(mixed).curves[metrics.parent.name]) == 5
    assert gather(mixed).complaints == ()
    metrics.write_text("{torn\n" + metrics.read_text())
    run = gather(mixed)
    assert len(run.curves[metrics.parent.name]) == 5
    assert run.complaints == (f"{metrics.parent.name}/metrics.jsonl:1 is damaged",)


def test_a_torn_plan_and_a_torn_invocation_hide_nothing_else(mixed):
    for name in ("plan.json", "invocations/0001.end.json"):
        (mixed / name).write_text("{")
    run = gather(mixed)
    assert len(run.evaluated) == 1 and len(run.complaints) == 2
    assert run.invocations[0].ended == {} and run.invocations[0].began["backend"] == "local"


def test_progress_is_of_each_invocation(mixed):
    fabricated_progress(mixed, 1, ["trainer-0"], lines=9, seed=0)
    assert len(gather(mixed).invocations[0].progress) == 9


def test_what_a_killed_driver_did_is_known_from_its_progress(mixed):
    fabricated_progress(mixed, 1, ["trainer-0"], lines=9, seed=0)
    (mixed / "invocations/0001.end.json").unlink()
    set_state(mixed, "killed", step=3)
    run = gather(mixed)
    (only,) = run.invocations
    last = only.progress[-1]
    assert run.state == "killed" and only.rows_trained == last["rows_trained"]
    assert only.training_s == pytest.approx(sum(last["stages"]["trainer-0"].values()))


def test_results_of_other_weights_are_told_and_not_shown(finished):
    gone = next((finished / "transcoders").iterdir())
    shutil.rmtree(gone)
    run = gather(finished)
    assert run.splice is None and "is of other transcoders" in run.splice_problem


def test_texts_of_the_users_are_told_too(reference, tmp_path):
    shutil.copytree(reference[1], tmp_path / "small")
    mine = tmp_path / "<b>mine.txt"
    mine.write_text("\n\n".join(f"Sentence {i} of mine." for i in range(300)))
    folder = RunFolder(tmp_path, "small")
    evaluate(folder, Wanted(text=str(mine), tokens=64, prefixes=False), QUIET)
    (text,) = gather(folder.path).texts
    assert text["quality.json"]["text"]["path"] == str(mine) and text["splice.json"]
    assert f"On {mine}" in words_of(page_of(folder.path)), "escaped, and not a tag"


def test_a_run_that_is_just_being_begun_is_one_message(mixed):
    (mixed / "resolved.json").unlink()
    with pytest.raises(ConfigError, match="is just being begun anew"):
        gather(mixed)
