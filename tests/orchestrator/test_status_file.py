"""`status.json` is a view: always of this invocation, and never in the way of the run."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orchestrator.run_folder.lock import Holder
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


def test_a_driver_elsewhere_that_has_nothing_to_tell_lives_by_its_lock(tmp_path: Path) -> None:
    """While a model loads, say."""
    StatusFile(tmp_path, 40)
    content = json.loads((tmp_path / NAME).read_text())
    long_ago = {**content, "host": "elsewhere", "updated": content["updated"] - 300}
    (tmp_path / NAME).write_text(json.dumps(long_ago))
    (tmp_path / "lock.json").write_text("{}")
    for age, state in ((5, "running"), (300, "killed"), (-9000, "killed")):
        at = time.time() - age
        os.utime(tmp_path / "lock.json", (at, at))
        assert (read_status(tmp_path, silent_s=300.0) or {})["state"] == state


def test_what_was_killed_after_training_is_done_at_its_last_step(tmp_path: Path) -> None:
    StatusFile(tmp_path, 40).close("stopped", Snapshot(40, "measuring", step=30))
    mark_done(tmp_path)
    state = read_status(tmp_path) or {}
    assert (state["state"], state["step"], state["phase"]) == ("done", 40, "done")


NO_STATE = '{"state": [], "transcoders": []}'
NOT_ROWS = '{"state": "done", "transcoders": null}', '{"state": "done", "transcoders": [1]}'


@pytest.mark.parametrize("content", ["", '{"state": "run', "[]", NO_STATE, *NOT_ROWS])
def test_a_damaged_status_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    assert read_status(tmp_path) is None


@pytest.mark.parametrize(("namespace", "age", "pid", "state"), [
    ("another", 5, 0, "running"),
    ("another", 40, 0, "killed"),
    ("another", 5, 1, "killed"),  # of whoever looks after the dead one's folder: gc, say
    ("ours", 5, 0, "killed"),
])  # fmt: skip
def test_a_driver_in_a_container_of_our_hosts_name_lives_by_its_lock(
    tmp_path: Path, namespace: str, age: float, pid: int, state: str
) -> None:
    StatusFile(tmp_path, 40)
    content = json.loads((tmp_path / NAME).read_text()) | {"pid": 4_000_000}
    (tmp_path / NAME).write_text(json.dumps(content))
    holder = replace(Holder.this_process(), pid=4_000_000 + pid)
    if namespace == "another":
        holder = replace(holder, pid_namespace="pid:[1]")
    (tmp_path / "lock.json").write_text(json.dumps(asdict(holder)))
    os.utime(tmp_path / "lock.json", (time.time() - age,) * 2)
    assert (read_status(tmp_path) or {})["state"] == state


def test_a_clock_that_is_ahead_keeps_no_dead_driver_alive(tmp_path: Path) -> None:
    StatusFile(tmp_path, 40)
    content = json.loads((tmp_path / NAME).read_text())
    ahead = {**content, "host": "elsewhere", "updated": content["updated"] + 7200}
    (tmp_path / NAME).write_text(json.dumps(ahead))
    assert (read_status(tmp_path) or {})["state"] == "killed"
