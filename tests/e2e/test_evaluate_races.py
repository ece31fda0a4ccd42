"""`eval` beside a run that is still finishing, and of files that were damaged."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.evaluating.evaluate import Wanted, evaluate
from orchestrator.evaluating.listener import QUIET
from orchestrator.evaluating.results import SPLICE
from orchestrator.run_folder.folder import RunFolder


@pytest.fixture
def run(reference, tmp_path):
    shutil.copytree(reference[1], tmp_path / "small", ignore=shutil.ignore_patterns("evaluations"))
    return RunFolder(tmp_path, "small")


def test_what_ends_while_a_text_is_read_is_measured_by_the_next(run, tmp_path, monkeypatch):
    """And is not taken for measured."""
    from orchestrator.evaluating import evaluate as module

    first, *_ = sorted(run.transcoders.iterdir())
    (first / "final").rename(tmp_path / "final")
    read_text = module._text

    def meanwhile(*args):
        text = read_text(*args)
        (tmp_path / "final").rename(first / "final")
        monkeypatch.setattr(module, "_text", read_text)
        return text

    monkeypatch.setattr(module, "_text", meanwhile)
    found = evaluate(run, Wanted(tokens=256), QUIET).read(SPLICE)
    assert found["weights"].keys() == found["transcoders"].keys() and len(found["weights"]) == 3
    found = evaluate(run, Wanted(tokens=256), QUIET).read(SPLICE)
    assert found["weights"].keys() == found["transcoders"].keys() and len(found["weights"]) == 4


@pytest.mark.parametrize("command", ["eval", "features"])
def test_a_mistake_about_a_text_names_the_option(run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.jsonl").write_text('{"content": "some text"}\n')
    for text, told in (
        ("c.jsonl", "--text c.jsonl:1: no column 'text', from which this run reads its text"),
        ("nothere.txt", "--text nothere.txt does not exist"),
    ):
        ended = CliRunner().invoke(cli, [command, str(run.path), "--text", text])
        assert ended.exit_code == 2 and told in ended.output, ended.output
        assert "data." not in ended.output
