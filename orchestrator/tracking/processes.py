"""Ending a process with everything that it started."""

from __future__ import annotations

from contextlib import suppress

import psutil


def end_children(pid: int) -> None:
    """Kill all descendants of a process; those of W&B sit in sessions of their own, where no
    signal to a process group reaches them."""
    _kill(_descendants(pid))


def end_tree(pid: int) -> None:
    """Kill a process and all its descendants."""
    found = _descendants(pid)  # before it dies: afterwards they are nobody's
    with suppress(psutil.NoSuchProcess):
        found = [psutil.Process(pid), *found]
    _kill(found)


def _descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
