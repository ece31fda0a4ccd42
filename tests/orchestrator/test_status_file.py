"""`status.json` is a view: always of this invocation, and never in the way of the run."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from orchestrator.snapshot import Snapshot
from orchestrator.status_file import NAME, StatusFile, mark_done, read_status

TRAINING = Snapshot(40, "training", step=3)


def test_a_new_invocation_shows_itself_before_its_first_step(tmp_path: Path) -> None:
    StatusFile(tmp_path, 40).close("stopped", TRAINING)
    StatusFile(tmp_path, 50)
    state = read_status(tmp_path)
    assert state is not None
    assert (state["state"], state["phase"], state["steps"]) == ("running", "tokens", 50)


def test_a_status_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mtc"):
        file = StatusFile(tmp_path / "absent", 40)
        file.update(TRAINING)
        file.close("done", TRAINING)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'absent' / NAME} cannot be written: [Errno 2] No such file or directory: "
        f"'{tmp_path / 'absent' / '.status.json.tmp'}'"
    ]


def test_only_the_first_end_counts(tmp_path: Path) -> None:
    file = StatusFile(tmp_path, 40)
    file.update(TRAINING)
    file.close("done", TRAINING)
    file.close("stopped", TRAINING)
    state = read_status(tmp_path)
    assert state is not None and (state["state"], state["step"]) == ("done", 3)


def test_a_driver_that_died_without_a_word_is_killed(tmp_path: Path) -> None:
    StatusFile(tmp_path, 40)
    content = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**content, "process_started": 1e9}))
    state = read_status(tmp_path)
    assert state is not None and state["state"] == "killed"


def test_a_watcher_believes_what_it_sees_and_not_the_clock_of_another_host(tmp_path: Path) -> None:
    StatusFile(tmp_path, 40)
    content = json.loads((tmp_path / NAME).read_text())
    elsewhere = {**content, "host": "elsewhere", "updated": content["updated"] - 9000}
    (tmp_path / NAME).write_text(json.dumps(elsewhere))
    assert (read_status(tmp_path) or {})["state"] == "killed"
    assert (read_status(tmp_path, silent_s=1.0) or {})["state"] == "running"
    assert (read_status(tmp_path, silent_s=9000.0) or {})["state"] == "killed"


def test_what_was_killed_after_training_is_done_at_its_last_step(tmp_path: Path) -> None:
    StatusFile(tmp_path, 40).close("stopped", Snapshot(40, "measuring", step=30))
    mark_done(tmp_path)
    state = read_status(tmp_path) or {}
    assert (state["state"], state["step"], state["phase"]) == ("done", 40, "done")


NOT_ROWS = '{"state": "done", "transcoders": null}', '{"state": "done", "transcoders": [1]}'


@pytest.mark.parametrize("content", ["", '{"state": "run', "[]", *NOT_ROWS])
def test_a_damaged_status_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    assert read_status(tmp_path) is None
