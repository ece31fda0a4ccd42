"""Rebuilds an index once for every system call in it, and dies just before that call.

    python -m tests.orchestrator.registry.killed_rebuild RUN CHANGED

Before each rebuild the index is that of RUN, and the files are those of CHANGED. After each kill a
reader must find the one or the other. Prints how many kills left what.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import closing
from itertools import count
from pathlib import Path

from orchestrator.registry import index
from tests.dying import die_before

CALLS = ("open", "fsync", "replace", "close")


def done(path: Path) -> int:
    with closing(index.connect(path)) as there:
        assert there.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return there.execute("SELECT done FROM run").fetchone()[0]


def main(old: Path, new: Path) -> None:
    found: Counter[str] = Counter()
    before = index.rebuild(old).read_bytes()
    for n in count():
        (new / index.NAME).write_bytes(before)
        child = os.fork()
        if not child:
            hooked = die_before(n, CALLS)
            index.write_bytes_atomic.__globals__["open"] = hooked(open)
            index.rebuild(new)
            os._exit(0)
        survived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        found["new" if done(new / index.NAME) < done(old / index.NAME) else "old"] += 1
        leftovers = list(new.glob(".*.tmp"))
        found["leftovers"] += len(leftovers)
        for path in leftovers:
            os.utime(path, (0, 0))
        with closing(index.open_index(new)) as opened:
            assert opened.execute("SELECT done FROM run").fetchone() == (0,)
        if survived:
            break
    assert not list(new.glob(".*.tmp"))
    sys.stdout.write(json.dumps({**found, "kills": n}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
