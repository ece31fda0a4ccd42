"""`<root>/.registry.sqlite`: the flat rows of every run under a root, so that a question over a
thousand runs reads one file. A cache of caches: any command may rebuild it, nobody needs it.

It is read whole into memory; runs that have changed since (see `glance.py`) are read anew and, if
nobody works on them, kept: the file is then replaced by a rename. Of two commands at once each
writes what it has seen, and the later one stays. Where the root cannot be written, memory has to
do.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtc_core.atomic import write_bytes_atomic
from orchestrator.registry.columns import RUN, TRANSCODER
from orchestrator.registry.glance import glance, settled_glances

if TYPE_CHECKING:
    from orchestrator.registry.flat_rows import FlatRun

NAME = ".registry.sqlite"
VERSION = 1  # of what the columns mean; other columns are noticed by themselves
ROUNDS = 2  # reading a run may renew its index, which changes its folder
_TYPES = {int: "INTEGER", bool: "INTEGER", float: "REAL", str: "TEXT"}
RUN_COLUMNS = [name for name in RUN if name != "path"]  # it goes by how the root is called
LEFTOVER_S = 60.0
SEAL = hashlib.sha256().digest_size
_writing = threading.Lock()  # a process has one temporary name

Progress = Callable[[int, int], None]  # runs read so far, of how many


def open_cache(
    root: Path, names: Iterable[str], whole: bool, keep: bool, progress: Progress
) -> sqlite3.Connection:
    """Tables `runs` and `transcoders` of these runs of a root as they are now, in memory.

    whole: these are all its runs, others have gone. keep: write what is new into the cache. Raises
    OSError."""
    cache = _loaded(root / NAME) or _empty()
    glances = {name: one[0] for name in names if (one := glance(f"{root}/{name}"))}
    known = dict(cache.execute("SELECT run, glance FROM runs"))
    gone = known.keys() - glances.keys() if whole else ()
    stale = [name for name, now in glances.items() if known.get(name) != now]
    _forget(cache, [*gone, *stale])
    unsettled = _read_anew(cache, root, stale, progress) if stale else []
    if keep and (gone or len(unsettled) < len(stale)):
        _write(root, cache)
    for flat in unsettled:
        _insert(cache, flat, None)
    if not whole:
        _forget(cache, known.keys() - glances.keys())
    return cache


def _read_anew(
    cache: sqlite3.Connection, root: Path, stale: Sequence[str], progress: Progress
) -> list[FlatRun]:
    """Put what is settled into the cache; the other runs, which somebody works on."""
    from orchestrator.registry.flat_rows import read_flat  # loads the manifest's schema: 0.2 s

    waiting = list(stale)
    moved: list[FlatRun] = []
    at_work: list[FlatRun] = []
    for turn in range(ROUNDS):
        before, moved = settled_glances(f"{root}/{name}" for name in waiting), []
        for done, name in enumerate(waiting):
            if turn == 0:
                progress(done, len(waiting))
            flat = read_flat(root / name)
            now = glance(path := f"{root}/{name}")
            if flat.at_work:
                at_work.append(flat)
            elif now is not None and now[0] == before[path]:
                _insert(cache, flat, before[path])
            else:
                moved.append(flat)
        waiting = [flat.run["run"] for flat in moved]
    return at_work + moved


def _insert(cache: sqlite3.Connection, flat: FlatRun, glance: str | None) -> None:
    name = flat.run["run"]
    head = [glance, *(_fitting(flat.run[column]) for column in RUN_COLUMNS)]
    cache.execute(f"INSERT OR REPLACE INTO runs VALUES ({_marks(head)})", head)
    for place, row in enumerate(flat.transcoders):
        values = [name, place, *(_fitting(row[column]) for column in TRANSCODER)]
        cache.execute(f"INSERT OR REPLACE INTO transcoders VALUES ({_marks(values)})", values)


def _forget(cache: sqlite3.Connection, names: Iterable[str]) -> None:
    for name in names:
        for table in ("runs", "transcoders"):
            cache.execute(f"DELETE FROM {table} WHERE run = ?", (name,))


def _loaded(path: Path) -> sqlite3.Connection | None:
    """The cache in a file, if it is one, whole, and of this version."""
    try:
        content = unsealed(path.read_bytes())
    except OSError:
        return None
    if content is None:
        return None
    cache = sqlite3.connect(":memory:", isolation_level=None)
    with suppress(sqlite3.Error):
        cache.deserialize(content)
        tables = [sql for (sql,) in cache.execute("SELECT sql FROM sqlite_schema ORDER BY rowid")]
        if tables == list(_tables()) and cache.execute("SELECT * FROM made").fetchone() == _made():
            return cache
    cache.close()
    return None


def sealed(content: bytes) -> bytes:
    """A database with its sha256 behind it, which SQLite passes over. Its own quick check does not
    find every garbled page, and takes longer."""
    return content + hashlib.sha256(content).digest()


def unsealed(content: bytes) -> bytes | None:
    """The database, if that is what was written."""
    return content[:-SEAL] if sealed(content[:-SEAL]) == content else None


def _empty() -> sqlite3.Connection:
    cache = sqlite3.connect(":memory:", isolation_level=None)
    for statement in _tables():
        cache.execute(statement)
    cache.execute("INSERT INTO made VALUES (?, ?)", _made())
    return cache


def _tables() -> Iterator[str]:
    yield "CREATE TABLE made (version INTEGER, package TEXT)"
    heads = ", ".join(f"{name} {_TYPES[RUN[name]]}" for name in RUN_COLUMNS)
    yield f"CREATE TABLE runs (glance TEXT, {heads}, PRIMARY KEY (run)) WITHOUT ROWID"
    rows = ", ".join(f"{name} {_TYPES[kind]}" for name, kind in TRANSCODER.items())
    yield (
        f"CREATE TABLE transcoders (run TEXT, place INTEGER, {rows}, PRIMARY KEY (run, place)) "
        "WITHOUT ROWID"
    )


def _made() -> tuple[int, str]:
    try:
        return VERSION, version("mtc-orchestrator")
    except PackageNotFoundError:
        return VERSION, ""


def _write(root: Path, cache: sqlite3.Connection) -> None:
    with suppress(OSError), _writing:  # somebody else's root, or a full disk
        for leftover in root.glob(f".{NAME}.*.tmp"):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                leftover.unlink(missing_ok=True)
        write_bytes_atomic(root / NAME, sealed(cache.serialize()))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _fitting(value: Any) -> Any:
    """SQLite has no integers beyond 64 bits, and JSON no infinity: such a figure is not known."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(value) if isinstance(value, int) and value.bit_length() > 63 else value
