"""A cheap test of whether files of a run came, went or grew since its index was made.

Facts are files written once, under a temporary name that is then renamed: each changes the date of
the folder that it appears in. So the dates of those folders, and size, date and number of the few
files that change, tell a new fact without a look at every file. Not told: a file that somebody
edits in place, which `registry verify` finds.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from orchestrator.registry.glance import STILL_S, TICK_S
from orchestrator.registry.invocations import FOLDER as INVOCATIONS
from orchestrator.run_folder.folder import RunFolder
from orchestrator.status_file import NAME as STATUS

CHANGING = "changing"  # a signature that no folder has


@dataclass(frozen=True, slots=True)
class _Look:
    digest: str
    newest_ns: int  # date of the folder that changed last


def signature(run: Path) -> str:
    """Of the facts as they are now. Raises OSError."""
    return _look(run).digest


def settled_signature(run: Path) -> str:
    """The same, to be taken before reading the facts; CHANGING if facts are just being written.

    Two changes of a folder within a tick of the clock give it the same date. So one that has
    just changed is looked at again a tick later: if its date is the same, there is no second."""
    look = _look(run)
    if time.time_ns() - look.newest_ns < STILL_S * 1e9:
        time.sleep(TICK_S)
        later = _look(run)
        return later.digest if later.newest_ns == look.newest_ns else CHANGING
    return look.digest


def _look(run: Path) -> _Look:
    folder = RunFolder(run.parent, run.name)
    seen: list[tuple] = [_file(folder.resolved), _file(folder.plan), _file(run / STATUS)]
    invocations, newest = _date(run / INVOCATIONS), 0
    transcoders = str(folder.transcoders)
    for id in sorted(_listed(transcoders)):
        own, checkpoints = _date(f"{transcoders}/{id}"), _date(f"{transcoders}/{id}/checkpoints")
        newest = max(newest, own, checkpoints)
        seen.append((id, own, checkpoints, *_file(f"{transcoders}/{id}/metrics.jsonl")))
    digest = hashlib.sha256(repr((invocations, seen)).encode()).hexdigest()
    return _Look(digest, max(newest, invocations))


def _file(path: str | Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _date(path: str | Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):  # the latter in a stray file, such as .DS_Store
        return 0


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []
