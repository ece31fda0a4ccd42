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
    is no run, or none that one may look into."""
    seen: list[int] = []
    newest = 0
    for name in _FILES:
        try:
            found = os.stat(run + name)
        except OSError:  # it is not there, not ours to read, or a link to itself
            if name == _FILES[0]:
                return None
            seen.append(0)
            continue
        seen += (found.st_ino, found.st_size, found.st_mtime_ns)
        newest = max(newest, found.st_mtime_ns)
    for name in _FOLDERS:
        try:
            found = os.stat(run + name)
        except OSError:  # whoever reads the run says what is wrong
            seen.append(0)
            continue
        seen += (found.st_ino, found.st_mtime_ns)
        newest = max(newest, found.st_mtime_ns)
    return " ".join(map(str, seen)), newest


def settled_glances(runs: Iterable[str]) -> dict[str, str | None]:
    """Of each run, to be taken before its facts are read; None where there is no run.

    Two changes within a tick of the clock have the same date. So where something is young, a tick
    passes before anybody reads: the second one is then read too, and any later has another date."""
    found = {run: glance(run) for run in runs}
    newest = max((one[1] for one in found.values() if one), default=0)
    if time.time_ns() - newest < STILL_S * 1e9:
        time.sleep(TICK_S)
    return {run: one and one[0] for run, one in found.items()}
