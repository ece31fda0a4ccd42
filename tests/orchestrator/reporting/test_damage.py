"""A report of a run whose files are damaged, old, or gone: what is wrong is named on the page, and
the rest stays."""

import json
import shutil

import pytest

from orchestrator.reporting.comparing import compare
from orchestrator.reporting.gather import gather
from tests.orchestrator.registry.runs import transcoder
from tests.orchestrator.reporting.pages import page_of, words_of


def edited(path, **changes):
    """A JSON file with keys changed."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("line", ["5", "{}", "null", '{"step": 1}', "{torn"])
def test_a_line_of_a_curve_is_left_out_and_named(mixed, line):
    metrics = transcoder(mixed, 0) / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    page = words_of(page_of(mixed))
    assert "metrics.jsonl:2 is damaged" in page
    assert len(gather(mixed).curves[transcoder(mixed, 0).name]) == len(lines)


@pytest.mark.parametrize(("content", "told"), [
    ("{", "is damaged"), ("{}", "ordinary is missing"), ("[]", "it is no object"),
])  # fmt: skip
def test_figures_that_are_damaged_count_as_none(mixed, content, told):
    (transcoder(mixed, 0) / "evaluation.json").write_text(content)
    page = words_of(page_of(mixed))
    assert "evaluation.json is damaged" in page and told in page
    assert "not finished" in page and "4 transcoders" in page
    assert compare([gather(mixed), gather(shutil.copytree(mixed, mixed.parent / "copy" / "t"))])


@pytest.mark.parametrize("name", ["density_histogram", "nonzeros_by_group", "fvu_ridge"])
def test_figures_that_lack_one_count_as_none(finished, name):
    path = next(iter(sorted(finished.glob("transcoders/*/evaluation.json"))))
    one = json.loads(path.read_text())
    del one["ordinary"][name]
    path.write_text(json.dumps(one))
    run = gather(finished)
    assert len(run.evaluated) == 3 and path.parent.name not in run.evaluated
    assert f"ordinary.{name} is missing" in words_of(page_of(finished))


def test_a_failure_that_cannot_be_read_is_named(mixed):
    (transcoder(mixed, 2) / "failed.json").write_text('{"reason": ')
    assert "failed.json is damaged" in words_of(page_of(mixed))


@pytest.mark.parametrize("content", ["[1]", "{", "5"])
def test_a_damaged_plan_is_named(mixed, content):
    (mixed / "plan.json").write_text(content)
    assert "plan.json is damaged" in words_of(page_of(mixed))


@pytest.mark.parametrize("harm", [
    lambda path: path.write_text('{"version": 1}'),
    lambda path: edited(path, joint={}),
    lambda path: edited(path, transcoders={"L00": {"ce_increase": None}}),
    lambda path: path.write_text("{"),
])  # fmt: skip
def test_a_splice_that_lacks_something_was_not_measured(finished, harm):
    harm(finished / "evaluations" / "test" / "splice.json")
    page = words_of(page_of(finished))
    assert "Not measured by this version" in page


def test_results_on_a_text_of_the_users_that_lack_something_are_left_out(with_text):
    run, mine, folder = with_text
    (folder / "quality.json").write_text('{"version": 1}')
    edited(folder / "splice.json", joint={"ce_increase": 1.0})
    assert f"On {mine}" not in words_of(page_of(run))


def test_results_on_a_text_of_the_users_of_other_weights_are_told_and_not_shown(with_text):
    run, mine, folder = with_text
    assert f"On {mine}" in words_of(page_of(run))
    weights = json.loads((folder / "splice.json").read_text())["weights"]
    edited(folder / "splice.json", weights=dict.fromkeys(weights, "0" * 64))
    page = words_of(page_of(run))
    assert "splice.json is of other transcoders" in page and f"eval --text {mine}" in page
    assert gather(run).texts[0]["splice.json"] is None and gather(run).texts[0]["quality.json"]


def test_without_a_status_the_last_invocation_tells_how_it_stands(finished):
    (finished / "status.json").write_text("")
    run = gather(finished)
    assert (run.state, run.step) == ("done", 40)
    (finished / "invocations" / "0001.end.json").unlink()
    run = gather(finished)
    assert run.state == "killed" and run.step == 40, "as its progress says"
    shutil.rmtree(finished / "invocations")
    assert (gather(finished).state, gather(finished).step) == ("done", 40), "as its curves say"
