"""What a reader learns without looking at a figure: is the suite good, which of it is not, and what
is not known."""

import json
import re
import shutil

import pytest
from click.testing import CliRunner

from mtc_core.errors import ConfigError
from orchestrator.cli import cli
from orchestrator.reporting.at_the_end import report_at_the_end, write_comparison, write_report
from orchestrator.reporting.comparing import compare
from orchestrator.reporting.gather import gather
from orchestrator.reporting.verdicts import ALL_GOOD, banner
from orchestrator.run_folder.folder import RunFolder
from orchestrator.verdict import RULES
from tests.orchestrator.registry.runs import transcoder
from tests.orchestrator.reporting.pages import (
    LIBRARY,
    fabricated_progress,
    figures_of,
    page_of,
    set_state,
    words_of,
)

GOOD = {"fvu": 0.2, "fvu_ridge": 0.4, "l0": 5.0, "fvu_by_prefix": [0.4, 0.3, 0.2]}


def judge(run, layer, dead=0.01, **ordinary):
    """Give a done transcoder other figures."""
    path = transcoder(run, layer) / "evaluation.json"
    one = json.loads(path.read_text())
    one |= {"dead_share": dead, "ordinary": one["ordinary"] | GOOD | ordinary}
    path.write_text(json.dumps(one))


def finish(run, layer):
    """Make another transcoder look as the done one does."""
    one = json.loads((transcoder(run, 0) / "evaluation.json").read_text())
    folder = transcoder(run, layer)
    (folder / "failed.json").unlink(missing_ok=True)
    (folder / "final").mkdir()
    (folder / "evaluation.json").write_text(json.dumps(one | {"id": folder.name}))


@pytest.fixture
def judged(mixed):
    """All four are done, and good."""
    for id in gather(mixed).named:
        (mixed / "transcoders" / id).mkdir(exist_ok=True)
    for layer in (1, 2, 3):
        finish(mixed, layer)
    for layer in range(4):
        judge(mixed, layer)
    return mixed


def test_a_good_suite_is_said_to_be_good_and_why(judged):
    found = banner(gather(judged))
    assert (found.mood, found.headline, found.lines) == ("good", "4 of 4 good", (ALL_GOOD,))
    page = words_of(page_of(judged))
    assert "4 of 4 good" in page and page.count("✓ good") == 4 and "✗" not in page


@pytest.mark.parametrize(
    ("name", "mood", "figures"),
    [
        ("ridge", "bad", {"fvu_ridge": 0.19}),
        ("l0", "warn", {"l0": 6.0}),
        ("dead", "bad", {"dead": 0.3}),
        ("groups", "warn", {"fvu_by_prefix": [0.4, 0.399, 0.2]}),
        ("behind", "warn", {"fvu_ridge": 0.25}),
    ],
)
def test_the_one_that_is_not_good_is_named_with_what_to_change(judged, name, mood, figures):
    judge(judged, 2, **figures)
    rule = next(rule for rule in RULES if rule.name == name)
    found = banner(gather(judged))
    assert (found.mood, found.headline) == (mood, "3 of 4 good; not good: L02")
    assert f"L02: {rule.what}. Change: {rule.advice}." in found.lines
    page = words_of(page_of(judged))
    assert page.count("✗") == 1 and f"✗ {rule.what}" in page and page.count("✓ good") == 3


def test_failures_are_named_with_their_reasons(mixed):
    judge(mixed, 0)
    found = banner(gather(mixed))
    assert found.headline == "1 of 4 good; stopped: L02; 2 not finished" and found.mood == "bad"
    assert "L02 stopped: its loss is not finite" in found.lines
    assert "The run was stopped at step 12 of 20; the same command continues it." in found.lines
    assert "✗ stopped" in words_of(page_of(mixed))


@pytest.mark.parametrize(
    ("state", "words"),
    [("running", "Training goes on: step 5 of 20."), ("killed", "The run was killed at step 5 of")],
)
def test_a_run_that_is_not_at_its_end_says_so(mixed, state, words):
    set_state(mixed, state, step=5, steps=20)
    assert words in words_of(page_of(mixed))
    (mixed / "invocations/0001.end.json").unlink()
    outcome = {"running": "works", "killed": "killed"}[state]
    fabricated_progress(mixed, 1, ["trainer-0"], lines=9, seed=0)
    assert f" {outcome} 8 " in words_of(page_of(mixed))


def test_a_run_before_its_first_step_has_a_page(mixed):
    shutil.rmtree(mixed / "transcoders")
    shutil.rmtree(mixed / "invocations")
    (mixed / "status.json").unlink()
    page = words_of(page_of(mixed))
    assert "nothing is finished yet" in page and "The run has not begun to train" in page
    assert "No step has been logged yet" in page and "No transcoder is done" in page
    assert figures_of(page_of(mixed)) == {}


def test_what_an_older_run_lacks_is_named_with_the_command_that_adds_it(mixed):
    page = words_of(page_of(mixed))
    assert f"mtc-orchestrate eval {mixed}" in page
    assert "No invocation has left its progress over time" in page


def test_it_leads_to_the_pages_of_latents_or_says_how_to_make_them(mixed, tmp_path):
    assert f"mtc-orchestrate features {mixed}" in words_of(page_of(mixed))
    (mixed / "features" / "test").mkdir(parents=True)
    (mixed / "features" / "test" / "index.html").touch()
    page = page_of(mixed)
    assert '<a href="features/test/index.html">the test half' in page
    assert "mtc-orchestrate features" not in words_of(page)
    write_report(mixed, tmp_path / "elsewhere.html")
    assert (
        f'<a href="{mixed.name}/features/test/index.html">'
        in (tmp_path / "elsewhere.html").read_text()
    )


def test_the_tables_have_the_terminals_figures(finished):
    printed = CliRunner().invoke(cli, ["metrics", str(finished)], env={"COLUMNS": "300"}).output
    page = words_of(page_of(finished))
    rows = [line.split() for line in printed.splitlines() if re.match(r"L0\S+-[0-9a-f]{8} ", line)]
    assert len(rows) == 8, "both tables"
    for row in rows:
        assert " ".join(row) in page


def test_nothing_from_a_manifest_or_a_path_becomes_markup(mixed):
    evil = "</script><script>alert(1)</script>"
    manifest = mixed / "manifest.yaml"
    manifest.write_text(f"# {evil}\n{manifest.read_text()}")
    resolved = json.loads((mixed / "resolved.json").read_text())
    resolved["model"]["name"] = resolved["data"]["path"] = evil
    resolved["name"] = f"<img src=x onerror=alert(1)>{evil}"
    (mixed / "resolved.json").write_text(json.dumps(resolved))
    failed = transcoder(mixed, 2) / "failed.json"
    failed.write_text(json.dumps({"reason": evil, "step": 1}))
    begin = json.loads((mixed / "invocations/0001.begin.json").read_text())
    begin |= {"host": evil, "overrides": [evil]}
    (mixed / "invocations/0001.begin.json").write_text(json.dumps(begin))
    fabricated_progress(mixed, 1, [f"trainer-{evil}"], lines=9, seed=0)
    page = page_of(mixed)
    assert evil not in page and "<img" not in page.replace(library(page), "")
    assert words_of(page).count(evil) >= 6


def library(page):
    """The script that draws: plotly's own, which has tags in its strings."""
    start = page.index(LIBRARY)
    return page[start : page.index("</script>", start)]


def test_the_page_asks_for_nothing(finished):
    page = page_of(finished)
    rest = page.replace(library(page), "")
    assert not re.search(r"(src|href)=\"(?!#|data:)", rest) and "url(" not in rest
    assert "@import" not in rest and "http" not in re.sub(r"https?://json\S*", "", rest)


# Several runs.


@pytest.fixture
def two(mixed, tmp_path):
    """The same run twice, of which the second was asked for something else."""
    shutil.copytree(mixed, tmp_path / "elsewhere" / "t")
    other = tmp_path / "elsewhere" / "t"
    resolved = json.loads((other / "resolved.json").read_text())
    resolved["train"]["lr"], resolved["seed"] = 0.5, 7
    (other / "resolved.json").write_text(json.dumps(resolved))
    judge(mixed, 0)
    judge(other, 0, fvu=0.1)
    return mixed, other


def test_a_comparison_tells_what_differs_and_which_is_better(two):
    page = compare([gather(run) for run in two])
    words = words_of(page)
    first, second = (f"{run.parent.name}/t" for run in two)
    assert f"{first} {two[0]}" in words and f"{second} {two[1]}" in words, "both are called t"
    assert "train.lr " in words and " 0.5" in words and "seed 0 7" in words
    assert "train.tokens" not in words, "it is the same"
    assert "mean FVU 0.200 ★ 0.100" in words
    assert "L00 0.200 0.100" in words


def test_the_figures_of_a_comparison_have_a_colour_for_each_run(two):
    runs = [gather(run) for run in two]
    figures = figures_of(compare(runs))
    assert [trace["y"] for trace in figures["fvu"]["data"]] == [[0.2], [0.1]]
    assert [trace["x"] for trace in figures["pareto"]["data"]] == [[5.0], [5.0]]
    colours = [trace["line"]["color"] for trace in figures["fvu"]["data"]]
    assert len(set(colours)) == 2
    curve = figures["curve-0"]["data"]
    assert [trace["line"]["color"] for trace in curve] == colours
    assert all(len(trace["x"]) == 5 for trace in curve)
    assert {"curve-1", "curve-2"} < figures.keys() and "curve-3" not in figures


def test_runs_without_anything_in_common_are_compared_as_far_as_that_goes(finished, mixed):
    page = words_of(compare([gather(finished), gather(mixed)]))
    assert "model.name" in page and "2 runs compared" in page


def test_a_run_named_twice_is_one_message(mixed, tmp_path):
    with pytest.raises(ConfigError, match="is given twice; name each run once"):
        write_comparison([mixed, mixed], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


# The command, and the end of a run.


def test_the_command_writes_into_the_run_or_where_it_is_told(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = map(str, two)

    def call(*arguments):
        ended = CliRunner().invoke(cli, ["report", *arguments])
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    assert call(first) == f"report: {first}/report.html\n"
    assert "1 of 4 good" in (two[0] / "report.html").read_text()
    assert call(first, "--out", "one.html") == "report: one.html\n"
    assert call(first, second) == "report: comparison.html\n"
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()
    told = json.loads(call(first, second, "--out", "two.html", "--json"))
    assert told["page"] == "two.html" and [run["run"] for run in told["runs"]] == [first, second]
    assert told["runs"][0]["transcoders"][0]["verdict"]["breaks"] == []


@pytest.mark.parametrize("out", ["no/such/folder/x.html", "a-file/x.html"])
def test_where_a_page_cannot_be_written_is_one_message(mixed, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    ended = CliRunner().invoke(cli, ["report", str(mixed), "--out", out])
    assert ended.exit_code == 2 and f"{out}: cannot be written" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_whatever_goes_wrong_at_the_end_is_told_and_raises_nothing(mixed, monkeypatch):
    class Said:
        text = ""

        def print(self, text, **_):
            Said.text += text

    def broken(*_):
        raise ZeroDivisionError("a bug of ours")

    folder = RunFolder(mixed.parent, mixed.name)
    monkeypatch.setattr("orchestrator.reporting.page.report", broken)
    report_at_the_end(folder, Said())
    assert Said.text.startswith("no report: ZeroDivisionError: a bug of ours; traceback in ")
    (mixed / "resolved.json").write_text("{")
    Said.text = ""
    report_at_the_end(folder, Said())
    assert "no report: " in Said.text and "is damaged" in Said.text
    assert not folder.report.exists()
