"""One driver at a time works on a run folder: `lock.json` says which, and that it still lives.

A driver that we can see is looked up among the processes. One on another machine counts as gone
when it has given no sign for a minute; one under our host's name that we cannot see (a container,
a machine of the same name, before a restart) after a few missed signs. A driver that finds itself
replaced stops. Commands that only read need no lock.
"""

from __future__ import annotations

import errno
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

from mtc_core.atomic import remove_leftovers
from mtc_core.errors import ConfigError
from orchestrator.run_folder.disk_errors import disk_errors

NAME = "lock.json"
BEAT_S = 5.0
SILENT_S = 60.0
UNSEEN_S = 3 * BEAT_S
TRIES = 100
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LockLost(Exception):
    """Another driver took the run while this one gave no sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Which process holds a run. process_started: of `started`; since: seconds since 1970."""

    host: str
    pid: int
    boot_id: str
    pid_namespace: str
    process_started: float
    since: float

    @classmethod
    def this_process(cls) -> Holder:
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            boot_id=_boot_id(),
            pid_namespace=_pid_namespace(),
            process_started=started(os.getpid()),
            since=time.time(),
        )

    def lives(self, silent_s: float) -> bool:
        """Whether it may still be at work. silent_s: seconds since its last sign."""
        if self.host != socket.gethostname():
            return silent_s < SILENT_S
        if (self.boot_id, self.pid_namespace) != (_boot_id(), _pid_namespace()):
            return silent_s < UNSEEN_S
        return is_running(self.pid, self.process_started)


def started(pid: int) -> float:
    """When a process began: ticks since boot, which no setting of a clock changes; where there is
    no /proc, seconds since 1970. Raises psutil.NoSuchProcess."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return float(fields[19])
    except OSError:
        return psutil.Process(pid).create_time()


def is_running(pid: int, since: float) -> bool:
    """Whether the process that began then lives, not another of the same number."""
    try:
        return started(pid) == since and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def run_lock(folder: Path) -> Iterator[threading.Event]:
    """Hold a run folder while inside; it is made if absent, and removed if it is left empty. The
    event yielded is set when another driver has taken our place, after we gave no sign for long.

    Raises ConfigError if another driver works there, or if the folder cannot be written."""
    path = folder / NAME
    with disk_errors(folder, "written"):
        made = [one for one in (folder, *folder.parents) if not one.exists()]
        me = _take(path)
    ended, lost = threading.Event(), threading.Event()
    heart = threading.Thread(
        target=_beat, args=(path, me, ended, lost), name="run-lock", daemon=True
    )
    heart.start()
    try:
        yield lost
    finally:
        ended.set()
        heart.join()
        with suppress(OSError):  # the next driver finds a dead holder, and replaces it
            if _parse(path.read_bytes()) == me:
                path.unlink()
            for one in made:  # a run that was refused leaves nothing
                one.rmdir()


def _beat(path: Path, me: Holder, ended: threading.Event, lost: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(OSError):
            if _parse(path.read_bytes()) != me:
                lost.set()
                return
            os.utime(path)


def _take(path: Path) -> Holder:
    me = Holder.this_process()
    with suppress(OSError):  # another that begins now does the same
        remove_leftovers(path.parent, NAME)
    for _ in range(TRIES):  # another that ends in between takes the file, or the folder, with it
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if _created(path, me) or _replaced(path, me):
                return me
    raise ConfigError(f"{path}: could not be taken; delete it if no driver works on this run")


def _created(path: Path, me: Holder) -> bool:
    """A driver that is killed on the way leaves no half-written file, which would keep the run for
    a minute: a whole one gets the name, where the file system has hard links."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{NAME}.", suffix=".tmp")
    try:
        with open(handle, "r+b") as file:
            _write(file, me)
        os.chmod(draft, 0o644)
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _created_in_place(path, me)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
    return True


def _created_in_place(path: Path, me: Holder) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with open(handle, "r+b") as file:
        _write(file, me)
    return True


def _replaced(path: Path, me: Holder) -> bool:
    """Put ourselves in the place of a dead holder. Raises ConfigError if it lives."""
    # Through a link, in a run of somebody else's, another file would be written.
    with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "r+b") as file:
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
    file.write(json.dumps(asdict(me), indent=2).encode() + b"\n")
    file.flush()
    file.truncate()  # last: a reader passes over what may still stand behind it


def read_holder(folder: Path) -> Holder | None:
    """Of a run folder: whoever holds it, or held it and died."""
    try:
        return _parse((folder / NAME).read_bytes())
    except OSError:
        return None


def _parse(content: bytes) -> Holder | None:
    """None for a file that its writer has not finished, or never will."""
    try:
        return Holder(**json.JSONDecoder().raw_decode(content.decode())[0])
    except (ValueError, TypeError):
        return None


def _now_on_disk(folder: Path) -> float:
    """The time by the clock that dates files there, which may be another machine's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".tmp") as file:
        return os.stat(file.name).st_mtime


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


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
