"""One driver at a time: the living are respected, the dead replaced, and by one only."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from mtc_core.errors import ConfigError
from orchestrator.run_folder import lock as module
from orchestrator.run_folder.lock import NAME, SILENT_S, UNSEEN_S, Holder, is_running, run_lock


def left_behind(folder: Path, silent_s: float = 0, **changes: object) -> Path:
    """A lock that another driver left, its last sign `silent_s` ago."""
    folder.mkdir(exist_ok=True)
    path = folder / NAME
    path.write_text(json.dumps(asdict(replace(Holder.this_process(), **changes))))
    then = time.time() - silent_s
    os.utime(path, (then, then))
    return path


def test_the_lock_tells_its_holder_and_is_gone_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with run_lock(tmp_path / "run"):
        holder = Holder(**json.loads((tmp_path / "run" / NAME).read_text()))
        assert holder.pid == os.getpid() and is_running(holder.pid, holder.process_started)
        assert abs(holder.since - time.time()) < 10
    assert list((tmp_path / "run").iterdir()) == []


def test_where_there_are_no_hard_links_the_lock_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with run_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
        assert Holder(**json.loads((tmp_path / NAME).read_text())).pid == os.getpid()
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"), run_lock(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_driver_left_that_was_killed_while_it_took_the_lock_goes(tmp_path: Path) -> None:
    """Whatever of it was written, nobody has to wait."""
    (tmp_path / f".{NAME}.abc.tmp").write_text('{"host"')
    with run_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
    path = left_behind(tmp_path, pid=2**22 + 1)
    path.write_bytes(path.read_bytes() + b" 1}\n}")  # the end of a longer one
    with run_lock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_an_error_ends_the_lock_and_a_folder_left_empty_goes_with_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path / "runs" / "one"):
        assert (tmp_path / "runs" / "one" / NAME).exists()
        raise ZeroDivisionError
    assert not (tmp_path / "runs" / "one").exists()
    with run_lock(tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "one" / "result").touch()
    assert [path.name for path in (tmp_path / "runs" / "one").iterdir()] == ["result"]


def test_a_living_holder_is_named_and_left_in_peace(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        before = (tmp_path / NAME).read_bytes()
        with (
            pytest.raises(ConfigError, match=rf"process {os.getpid()} on \S+ since 20\d\d-"),
            run_lock(tmp_path),
        ):
            pass
        assert (tmp_path / NAME).read_bytes() == before


def test_a_killed_holder_is_replaced_at_once_even_before_anyone_has_buried_it(
    tmp_path: Path,
) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from orchestrator.run_folder.lock import run_lock\n"
        "with run_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid} on"), run_lock(tmp_path):
            pass
        holder.kill()
        while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        with run_lock(tmp_path):
            assert Holder(**json.loads((tmp_path / NAME).read_text())).pid == os.getpid()
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 1},
        {"process_started": 1e9},
        {"boot_id": "before the restart", "silent_s": UNSEEN_S + 1},
        {"pid_namespace": "of a container", "silent_s": UNSEEN_S + 1},
    ],
    ids=["pid gone", "pid reused", "machine restarted", "container gone"],
)
def test_a_holder_that_cannot_live_any_more_is_replaced(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    left_behind(tmp_path, **changes)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("changes", [{"boot_id": "of another"}, {"pid_namespace": "of another"}])
def test_a_holder_of_our_host_name_that_we_cannot_see_keeps_the_run_while_it_gives_signs(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    left_behind(tmp_path, **changes)
    with pytest.raises(ConfigError, match="is being worked on"), run_lock(tmp_path):
        pass


def test_a_driver_that_was_replaced_is_told_and_leaves_the_lock_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    with run_lock(tmp_path) as lost:
        assert not lost.is_set()
        left_behind(tmp_path, pid=1)
        assert lost.wait(20)
    assert json.loads((tmp_path / NAME).read_text())["pid"] == 1


def test_a_remote_holder_counts_as_gone_when_it_has_been_silent_long_enough(
    tmp_path: Path,
) -> None:
    path = left_behind(tmp_path, host="elsewhere", silent_s=SILENT_S - 20)
    told = r"on elsewhere since .*last sign was 4\d s ago"
    with pytest.raises(ConfigError, match=told), run_lock(tmp_path):
        pass
    left_behind(tmp_path, host="elsewhere", silent_s=SILENT_S + 1)
    with run_lock(tmp_path):
        assert json.loads(path.read_text())["host"] != "elsewhere"


def test_a_lock_that_was_never_written_to_its_end_blocks_for_a_minute_only(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text('{"host": "x')
    with pytest.raises(ConfigError, match="just being taken"), run_lock(tmp_path):
        pass
    os.utime(path, (0, 0))
    with run_lock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_the_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.01)
    with run_lock(tmp_path):
        os.utime(tmp_path / NAME, (0, 0))
        deadline = time.monotonic() + 20
        while (tmp_path / NAME).stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - (tmp_path / NAME).stat().st_mtime < 20


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_that_come_at_once_one_gets_the_run(tmp_path: Path, dead: bool) -> None:
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if dead:
            left_behind(folder, boot_id="before the restart", silent_s=UNSEEN_S + 9)
        got, together, held = [], threading.Barrier(8), threading.Barrier(8)

        def contend(folder=folder, got=got, together=together, held=held) -> None:
            together.wait()
            try:
                with run_lock(folder):
                    got.append("the run")
                    held.wait()
            except ConfigError as error:
                got.append(str(error))
                held.wait()

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got.count("the run") == 1 and len(got) == 8
        assert not (folder / NAME).exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        told = r"cannot be written .*choose another --root"
        with pytest.raises(ConfigError, match=told), run_lock(folder):
            pass
