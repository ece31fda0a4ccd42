"""One driver at a time works on a run folder: `lock.json` says which, and that it still lives.

A driver on this machine is looked up among the processes; one on another machine counts as gone
when it has given no sign for a minute. Commands that only read need no lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from mtc_core.errors import ConfigError
from orchestrator.disk_errors import disk_errors

NAME = "lock.json"
BEAT_S = 5.0
SILENT_S = 60.0
TRIES = 100
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CLOCK_STEP_S = 2.0  # start times are told by a clock that may be set meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Which process holds a run; times in seconds since 1970."""

    host: str
    pid: int
    boot_id: str
    process_started: float
    since: float

    @classmethod
    def this_process(cls) -> Holder:
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            boot_id=_boot_id(),
            process_started=psutil.Process().create_time(),
            since=time.time(),
        )

    def lives(self, silent_s: float) -> bool:
        """Whether it may still be at work. silent_s: seconds since its last sign."""
        if self.host != socket.gethostname():
            return silent_s < SILENT_S
        return self.boot_id == _boot_id() and is_running(self.pid, self.process_started)


def is_running(pid: int, started: float) -> bool:
    """Whether that very process of this machine lives, not another of the same number."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < _CLOCK_STEP_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a run folder while inside; it is made if absent, and removed if it is left empty.

    Raises ConfigError if another driver works there, or if the folder cannot be written."""
    path = folder / NAME
    with disk_errors(folder, "written"):
        was_there = folder.exists()
        me = _take(path)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, ended), name="run-lock", daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        with suppress(OSError):  # the next driver finds a dead holder, and replaces it
            if _parse(path.read_bytes()) == me:
                path.unlink()
            if not was_there:
                folder.rmdir()


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(OSError):
            os.utime(path)


def _take(path: Path) -> Holder:
    me = Holder.this_process()
    for _ in range(TRIES):  # another that ends in between takes the file, or the folder, with it
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if _created(path, me) or _replaced(path, me):
                return me
    raise ConfigError(f"{path}: could not be taken; delete it if no driver works on this run")


def _created(path: Path, me: Holder) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with open(handle, "r+b") as file:
        _write(file, me)
    return True


def _replaced(path: Path, me: Holder) -> bool:
    """Put ourselves in the place of a dead holder. Raises ConfigError if it lives."""
    with open(path, "r+b") as file:
        # Whoever replaces a holder does so in the same file and alone, so that of two which find
        # it dead the second one finds the first.
        _alone(file)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return False
        holder = _parse(file.read())
        silent_s = _now_on_disk(path.parent) - os.fstat(file.fileno()).st_mtime
        if holder.lives(silent_s) if holder else silent_s < SILENT_S:
            raise ConfigError(_refusal(path, holder, silent_s))
        _write(file, me)
    return True


def _alone(file: BinaryIO) -> None:
    with suppress(OSError):  # some network file systems have no such locks
        fcntl.flock(file, fcntl.LOCK_EX)


def _write(file: BinaryIO, me: Holder) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(asdict(me), indent=2).encode() + b"\n")


def _parse(content: bytes) -> Holder | None:
    """None for a file that its writer has not finished, or never will."""
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _now_on_disk(folder: Path) -> float:
    """The time by the clock that dates files there, which may be another machine's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp") as file:
        return os.stat(file.name).st_mtime


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


def _refusal(path: Path, holder: Holder | None, silent_s: float) -> str:
    if holder is None:
        return f"{path} is just being taken by another driver; run the command again in a minute"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
    text = (
        f"{path.parent} is being worked on by process {holder.pid} on {holder.host} "
        f"since {since}; wait for its end, or stop it"
    )
    if holder.host != socket.gethostname():
        text += (
            f". Its last sign was {max(0, round(silent_s))} s ago; after {SILENT_S:.0f} s without "
            "one it counts as gone"
        )
    return text
