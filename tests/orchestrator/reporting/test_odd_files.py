"""What was left out of a report is told on its page, and takes nothing else with it: odd results,
failures, invocations and states."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner

from mtc_core.errors import ConfigError
from orchestrator.cli import cli
from orchestrator.reporting.at_the_end import write_page
from orchestrator.reporting.comparing import compare
from orchestrator.reporting.gather import gather
from orchestrator.reporting.page import report
from orchestrator.reporting.verdicts import ALL_GOOD, banner
from orchestrator.run_folder.folder import RunFolder
from orchestrator.summary import read_ended
from tests.orchestrator.registry.runs import transcoder
from tests.orchestrator.reporting.pages import fabricated_progress, page_of, words_of

SPLICE = "evaluations/test/splice.json"
RESULT = ['{"version": 1}', '{"version"', "[1]", "null"]


def change(path, edit):
    """edit: what a file is to hold instead; or a function that changes its object in place."""
    if isinstance(edit, str):
        path.write_text(edit)
    else:
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))


def left_out(run, *words):
    """The page is there, and one of its complaints has all these words."""
    found = gather(run)
    told = [one for one in found.complaints if all(word in one for word in words)]
    assert len(told) == 1, found.complaints
    assert f"Left out: {told[0]}" in words_of(page_of(run))
    return found


@pytest.mark.parametrize("edit", [
    *RESULT,
    lambda splice: splice.pop("weights"),
    lambda splice: splice.pop("ce_clean"),
    lambda splice: splice.update(joint={"ce_increase": 1.0}),
    lambda splice: [one.pop("extreme_left") for one in splice["transcoders"].values()],
    lambda splice: [one.update(ce_increase=None) for one in splice["transcoders"].values()],
])  # fmt: skip
def test_a_damaged_splice_is_told_and_the_rest_stays(finished, edit):
    change(finished / SPLICE, edit)
    run = left_out(finished, "splice.json is damaged")
    assert run.splice is None and len(run.evaluated) == 4


def test_a_result_of_another_version_or_of_no_tokens_is_no_damage(finished):
    def of_no_tokens(splice):
        splice |= {"tokens": 0, "transcoders": {}, "joint": None}
        del splice["ce_clean"]

    change(finished / SPLICE, of_no_tokens)
    assert gather(finished).splice and gather(finished).complaints == ()
    assert page_of(finished)
    change(finished / SPLICE, lambda splice: splice.update(version=0))
    assert gather(finished).splice is None and gather(finished).complaints == ()


@pytest.mark.parametrize("name", ["quality.json", "splice.json"])
@pytest.mark.parametrize("edit", RESULT)
def test_damaged_results_on_a_text_of_the_users_are_told_and_the_others_shown(
    with_text, name, edit
):
    run, mine, folder = with_text
    change(folder / name, edit)
    (text,) = left_out(run, f"{folder.name}/{name} is damaged").texts
    assert text[name] is None and sum(one is not None for one in text.values()) == 1
    assert f"On {mine}" in words_of(page_of(run))


def test_what_is_left_of_a_suite_leaves_out_what_was_measured_of_all(with_text):
    run, mine, _ = with_text
    shutil.rmtree(next((run / "transcoders").iterdir()))
    assert left_out(run, "quality.json is of other transcoders, or of fewer").texts == ()
    assert f"On {mine}" not in words_of(page_of(run))


@pytest.mark.parametrize("content", ['{"reas', "{}", '{"reason": 5}', "[]"])
def test_a_failure_whose_reason_is_damaged_is_still_one(mixed, content):
    path = transcoder(mixed, 2) / "failed.json"
    path.write_text(content)
    left_out(mixed, f"{path.parent.name}/failed.json is damaged")
    words = words_of(page_of(mixed))
    assert "stopped: L02; 2 not finished" in words and "✗ stopped" in words
    assert "L02 stopped: why is not known: its failed.json is damaged" in words


def test_one_that_is_done_without_figures_is_not_called_unfinished(finished):
    next(iter(finished.glob("transcoders/*/evaluation.json"))).write_text("{")
    left_out(finished, "evaluation.json is damaged")
    words = words_of(page_of(finished))
    assert words.count("· no figures") == 1 and "not finished" not in words


def test_who_does_not_ask_for_complaints_gets_the_first_as_an_error(mixed):
    (transcoder(mixed, 2) / "failed.json").write_text("{")
    folder = RunFolder(mixed.parent, mixed.name)
    with pytest.raises(ConfigError, match=r"failed\.json is damaged"):
        read_ended(folder, list(folder.recorded()["specs"]))


STATUS = [None, "", "{", "[]", '{"state": "stopped", "step": "x"}', '{"state": 5, "steps": []}']


@pytest.mark.parametrize("status", STATUS)
def test_without_a_status_the_last_invocation_says_how_it_stands(mixed, status):
    fabricated_progress(mixed, 1, ["trainer-0"], lines=9, seed=0)
    (mixed / "status.json").unlink()
    if status is not None:
        (mixed / "status.json").write_text(status)
    assert ("status.json is damaged" in words_of(page_of(mixed))) == (status is not None)
    assert "at step 12 of 20; the same command continues it." in words_of(page_of(mixed))
    (mixed / "invocations/0001.end.json").unlink()
    assert "The run was killed at step 8 of 20" in words_of(page_of(mixed))


@pytest.mark.parametrize("gone", ["invocations", "its end and progress"])
def test_without_that_the_logged_steps_of_what_is_unfinished_say_it(mixed, gone):
    (mixed / "status.json").unlink()
    if gone == "invocations":
        shutil.rmtree(mixed / "invocations")
    else:
        (mixed / "invocations/0001.end.json").unlink()
    how = "stopped" if gone == "invocations" else "killed"
    assert f"The run was {how} at step 11 of 20;" in words_of(page_of(mixed)), "0, 5 and 10 are"


def test_a_comparison_tells_of_which_run_what_was_left_out(finished, mixed):
    (mixed / "plan.json").write_text("[1]")
    (finished / SPLICE).write_text('{"version": 1}')
    words = words_of(compare([gather(finished), gather(mixed)]))
    assert "t: left out: plan.json is damaged" in words
    assert f"small: left out: {finished / SPLICE} is damaged" in words


@pytest.mark.parametrize(("name", "key", "value"), [
    ("begin", "began", "x"), ("begin", "versions", 5), ("begin", "overrides", 5),
    ("end", "ended", "x"), ("end", "seconds", {"train": None}), ("end", "step", "x"),
    ("end", "rows_trained", "x"), ("end", "forwards", {"trainer-0": 5}), ("end", "replaced", 5),
    ("end", "stages", {"trainer-0": 5}), ("end", "first_step_s", "x"),
])  # fmt: skip
def test_an_odd_invocation_hides_no_other_figure(finished, name, key, value):
    change(finished / f"invocations/0001.{name}.json", lambda facts: facts.update({key: value}))
    run = left_out(finished, f"0001.{name}.json is damaged: {key}")
    (only,) = run.invocations
    assert (only.began if name == "begin" else only.ended) == {}
    assert (only.ended if name == "begin" else only.began) and len(run.evaluated) == 4


@pytest.mark.parametrize("line", ['{"stages": 5}', '{"at": "x"}', '{"resident_bytes": [1]}'])
def test_an_odd_line_of_progress_is_passed_over_and_told(mixed, line):
    fabricated_progress(mixed, 1, ["trainer-0"], lines=9, seed=0)
    path = mixed / "invocations/0001.progress.jsonl"
    path.write_text(line + "\n" + path.read_text())
    assert (
        len(left_out(mixed, "1 line of 0001.progress.jsonl damaged").invocations[0].progress) == 9
    )


def test_a_line_of_a_curve_without_a_list_of_prefixes_is_left_out(mixed):
    path = transcoder(mixed, 0) / "metrics.jsonl"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"fvu_by_prefix": 5}), *others, ""]))
    assert len(left_out(mixed, "metrics.jsonl:1 is damaged").curves[path.parent.name]) == 4


def test_without_figures_nothing_is_called_good(finished):
    figures = sorted(finished.glob("transcoders/*/evaluation.json"))
    figures[0].unlink()
    found = banner(gather(finished))
    assert found.mood != "good" and "1 without figures" in found.headline
    assert ALL_GOOD not in found.lines
    for path in figures[1:]:
        path.unlink()
    found = banner(gather(finished))
    assert (found.mood, found.headline) == ("warn", "0 of 4 good; 4 without figures")
    (line,) = found.lines
    assert line.endswith(": done, without figures; registry verify says what to do.")


@pytest.mark.parametrize("name", ["evaluation.json", "metrics.jsonl"])
def test_a_file_that_cannot_be_read_is_one_message(finished, name):
    path = sorted(finished.glob("transcoders/*"))[0] / name
    path.unlink()
    path.mkdir()  # root reads what nobody else may
    words = ["metrics", str(finished), path.parent.name] if name == "metrics.jsonl" else None
    for call in [words] if words else [["status", str(finished)], ["metrics", str(finished)]]:
        ended = CliRunner().invoke(cli, call)
        assert ended.exit_code == 2 and f"{path}: cannot be read" in ended.output, ended.output
    if not words:
        left_out(finished, "cannot be read")


def test_a_page_lies_wherever_its_run_lies(finished, tmp_path):
    """In a folder whose name is no UTF-8, too."""
    run = shutil.copytree(finished, tmp_path / os.fsdecode(b"j\xfcrgen") / "small")
    write_page(tmp_path / "page.html", report(gather(run), tmp_path))
    assert "j?rgen" in (tmp_path / "page.html").read_text()
