"""The cheapest test of whether a run has changed, for one who asks a thousand runs at once.

`signature.py` looks at each transcoder: 150 calls for a run of 50, too many for a thousand runs.
Here are seven for each: all that our commands do to a run whose driver has ended also changes the
date of its folder, of `invocations/`, `transcoders/`, `evaluations/` or `evaluations/test/`, for
they write by renaming, under a lock that comes and goes, and renew the index. Not told: what
somebody deletes or edits by hand further down; `registry rebuild` takes that in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

TICK_S = 0.012  # files are dated by a clock that ticks up to each 10 ms
STILL_S = 2.0
_FOLDERS = ("", "/invocations", "/transcoders", "/evaluations", "/evaluations/test")
_FILES = ("/resolved.json", "/status.json")


def glance(run: str) -> tuple[str, int] | None:
    """What tells the state of a run from others, and the date (ns) of its newest change. None: this
    is no run. Raises OSError."""
    seen: list[int] = []
    newest = 0
    for name in _FILES:
        try:
            found = os.stat(run + name)
        except (FileNotFoundError, NotADirectoryError):
            if name == _FILES[0]:
                return None
            seen.append(0)
            continue
        seen += (found.st_ino, found.st_size, found.st_mtime_ns)
        newest = max(newest, found.st_mtime_ns)
    for name in _FOLDERS:
        try:
            found = os.stat(run + name)
        except (FileNotFoundError, NotADirectoryError):
            seen.append(0)
            continue
        seen += (found.st_ino, found.st_mtime_ns)
        newest = max(newest, found.st_mtime_ns)
    return " ".join(map(str, seen)), newest


def settled_glances(runs: Iterable[str]) -> dict[str, str | None]:
    """Of each run, to be taken before its facts are read; None where they are just being written.

    As in `settled_signature`: what is young is looked at again a tick of the clock later, once for
    all, for two changes within a tick have the same date."""
    first = {run: glance(run) for run in runs}
    young = [run for run, one in first.items() if one and time.time_ns() - one[1] < STILL_S * 1e9]
    found = {run: one and one[0] for run, one in first.items()}
    if young:
        time.sleep(TICK_S)
        found |= {run: found[run] if glance(run) == first[run] else None for run in young}
    return found
