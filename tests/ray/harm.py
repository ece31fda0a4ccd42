"""What befalls a run from outside, at moments that are told from its files. No code of ours helps.

Linux only: `/proc/locks` says which process trains a transcoder.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

LIMIT_S = 60.0


@contextmanager
def meanwhile(*acts: Callable[[], Any]) -> Iterator[None]:
    """Do these in threads while the body runs; their errors are raised after it."""
    with ThreadPoolExecutor(len(acts)) as pool:
        futures = [pool.submit(act) for act in acts]
        yield
        for future in futures:
            future.result(LIMIT_S)


@contextmanager
def harmless(number: int) -> Iterator[None]:
    """A signal that comes when no run is there to take it does nothing."""
    earlier = signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(number, earlier)


def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Wait until the condition gives something; that."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.002)
    raise AssertionError(f"{what}: not within {limit_s:.0f} s")


def trainer_of(transcoder: Path) -> int | None:
    """The process that trains it now, from before it loads until it is done."""
    try:
        inode = (transcoder / ".lock").stat().st_ino
    except FileNotFoundError:
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def kill_trainer(transcoder: Path, when: Callable[[], None]) -> None:
    """Wait for a trainer, then for the moment; both gone when this returns."""
    pid = until(lambda: trainer_of(transcoder), f"a trainer of {transcoder}")
    when()
    os.kill(pid, signal.SIGKILL)
    until(lambda: trainer_of(transcoder) != pid, f"the end of {pid}")


def newest_step(folder: Path) -> int:
    """Of all checkpoints below a run or a transcoder; -1 before the first."""
    return max((int(path.name[5:]) for path in _checkpoints(folder, "step-*")), default=-1)


def steps_on(folder: Path, stride: int) -> None:
    """Wait until a run or a transcoder has a checkpoint that much newer than it has now."""
    target = newest_step(folder) + stride
    until(lambda: newest_step(folder) >= target, f"step {target} of {folder}")


def half_written(folder: Path) -> list[Path]:
    """Checkpoints of a run or a transcoder that are being written, or whose writer was killed."""
    return _checkpoints(folder, ".step-*.tmp")


def _checkpoints(folder: Path, pattern: str) -> list[Path]:
    nearby = folder.glob(f"checkpoints/{pattern}")
    return [*nearby, *folder.glob(f"transcoders/*/checkpoints/{pattern}")]


def freeze_inside(writing: Callable[[], list[Path]]) -> tuple[int, Path]:
    """Stop a process while a temporary file or folder of its writing is there: its pid and that."""
    return until(lambda: frozen_inside(writing()), "a write to be caught")


def frozen_inside(writing: list[Path]) -> tuple[int, Path] | None:
    """Try it once. Both are told by the name, `.NAME.RANDOM.PID.tmp`."""
    for path in writing:
        if path.name.endswith(".old.tmp"):  # it is being removed
            continue
        pid = int(path.name.split(".")[-2])
        if stop(pid):
            if path.exists():
                return pid, path
            os.kill(pid, signal.SIGCONT)
    return None


def stop(pid: int) -> bool:
    """Stop a process, if it is there; whether it was."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return False
    until(lambda: _stopped(pid), "stopped")
    return True


def _stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
