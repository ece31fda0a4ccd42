"""Work in a process of its own: what is told, what is raised, what is left when somebody dies."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from mtc_core.errors import ConfigError, DataError, ReadingStopped
from mtc_core.tokens.text_files import NoColumn
from orchestrator.own_process import Progress, in_own_process

LONG_S = 60.0


class Ended(Exception):
    """Somebody asked for it."""


class Panic(BaseException):
    """As Rust's are."""


def work(given: Any, progress: Progress) -> None:
    """Whatever it is told to do."""
    progress(os.getpid(), "begun")
    match given["do"]:
        case "write":
            logging.getLogger("mtc.gguf").info("unpacking %s", "it")
            Path(given["path"]).write_text(f"{'torch' in sys.modules}")
        case "sleep":
            time.sleep(LONG_S)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "config":
            raise ConfigError("k: 0 is below 1")
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device", given["path"])
        case "network":
            raise ConnectionResetError(errno.ECONNRESET, "reset by peer")
        case "odd":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd")
        case "column":
            raise NoColumn("txt", ["text"], "text.jsonl:1")
        case "panic":
            raise Panic("a tokenizer")
        case "heir":
            subprocess.Popen(["sleep", str(LONG_S)])
            os.kill(os.getpid(), signal.SIGKILL)


def told(*_: object) -> None:
    """Nobody listens."""


def test_what_it_says_is_heard_and_what_it_does_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[int, str]] = []
    given = {"do": "write", "path": str(tmp_path / "out")}
    with caplog.at_level(logging.INFO, "mtc"):
        in_own_process(work, given, lambda *said: heard.append(said), "beginning")
    assert heard[0] == (0, "beginning") and heard[-1][1] == "begun"
    assert heard[-1][0] != os.getpid(), "it was no process of its own"
    assert "unpacking it" in caplog.text
    assert (tmp_path / "out").read_text() == "False"


def test_errors_are_raised_here_as_what_they_were_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^k: 0 is below 1$"):
        in_own_process(work, {"do": "config"}, told, "working")
    with pytest.raises(OSError) as disk:
        in_own_process(work, {"do": "disk", "path": str(tmp_path)}, told, "working")
    assert (disk.value.errno, disk.value.filename) == (errno.ENOSPC, str(tmp_path))
    with pytest.raises(ConnectionResetError, match="reset by peer"):  # not one of ours
        in_own_process(work, {"do": "network"}, told, "working")
    with pytest.raises(DataError, match=r"^text\.jsonl:1: no column 'txt'"):  # a class of its own
        in_own_process(work, {"do": "column"}, told, "working")
    with pytest.raises(RuntimeError, match="Panic: a tokenizer"):
        in_own_process(work, {"do": "panic"}, told, "working")
    with pytest.raises(RuntimeError, match=r"UnicodeDecodeError: .*odd") as odd:
        in_own_process(work, {"do": "odd"}, told, "working")
    assert "in work" in "".join(odd.value.__notes__), "its traceback is lost"


def test_an_error_of_who_listens_is_not_taken_for_its_end() -> None:
    """Of a trainer that failed meanwhile, say, whose connection broke."""

    def progress(_: int, doing: str) -> None:
        if doing == "begun":
            raise ConnectionResetError("of another")

    began = time.monotonic()
    with pytest.raises(ConnectionResetError, match="of another"):
        in_own_process(work, {"do": "sleep"}, progress, "working")
    assert time.monotonic() - began < LONG_S / 2


def test_nothing_is_imported_from_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "re", "enum", "mtc_core"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    in_own_process(work, {"do": "write", "path": str(tmp_path / "out")}, told, "working")


@pytest.mark.parametrize(
    "end, how",
    [
        ("kill", "by SIGKILL, which"),
        ("exit", "with exit code 7"),
        ("heir", "by SIGKILL, which"),
    ],
)
def test_a_process_that_dies_is_told(end: str, how: str) -> None:
    with pytest.raises(ReadingStopped, match=how):
        in_own_process(work, {"do": end}, told, "working")


def test_who_is_asked_to_end_ends_it_whatever_it_does() -> None:
    began, there = time.monotonic(), []

    def progress(pid: int, doing: str) -> None:
        if doing == "begun":
            there.append(pid)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(pid, number)  # not its business
            if there.count(pid) > 3:
                raise Ended

    with pytest.raises(Ended):
        in_own_process(work, {"do": "sleep"}, progress, "working")
    assert there and not psutil.pid_exists(there[0])
    assert time.monotonic() - began < LONG_S / 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere when it next says something")
def test_it_ends_with_who_began_it() -> None:
    program = (
        "from tests.orchestrator.test_own_process import *\n"
        "in_own_process(work, {'do': 'sleep'}, lambda *said: print(*said, flush=True), 'working')"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        pid = next(int(line.split()[0]) for line in parent.stdout if b"begun" in line)
        assert psutil.pid_exists(pid)
        parent.kill()
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        psutil.wait_procs([process], timeout=10)
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
