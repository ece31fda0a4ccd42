"""index.sqlite: the facts of a run as tables, for questions. A cache that any command may rebuild.

Built in memory, then put in its place whole by a rename: a reader finds the old one or the new
one, and whoever holds the old one open keeps it. Where the folder cannot be written, the same rows
are served from memory.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from mtc_core.atomic import write_bytes_atomic
from mtc_core.errors import ConfigError, MtcError
from orchestrator.registry.facts import read_facts
from orchestrator.registry.rows import TABLES, Facts
from orchestrator.registry.signature import settled_signature, signature
from orchestrator.run_folder.disk_errors import disk_errors

NAME = "index.sqlite"
SCHEMA_VERSION = 1
APPLICATION_ID = 0x6D746331  # "mtc1": tells our databases from others
LEFTOVER_S = 60.0  # a rebuild takes milliseconds
_MARKS = {"application_id": APPLICATION_ID, "user_version": SCHEMA_VERSION}
_TABLES_THERE = "SELECT sql FROM sqlite_schema WHERE type = 'table' ORDER BY rowid"
_TYPES = {"int": "INTEGER", "float": "REAL", "str": "TEXT"}
_log = logging.getLogger("mtc")


def rebuild(run: Path) -> Path:
    """Write the index anew from the files of the run: its path. Raises ConfigError."""
    index = _from_files(run)
    try:
        with disk_errors(run / NAME, "written"):
            _write(run, index)
    finally:
        index.close()
    return run / NAME


def register(run: Path) -> None:
    """`rebuild` for a driver: what cannot be read or written is logged, for an index must never
    stop a run."""
    try:
        rebuild(run)
    except MtcError as error:
        _log.warning("the index is not up to date: %s", error)


def open_index(run: Path) -> sqlite3.Connection:
    """The index as the files are now, read-only; the caller closes it. Raises ConfigError.

    One that is missing, damaged, foreign, of another version or older than the files is rebuilt."""
    with disk_errors(run, "read"):
        now = signature(run)
    if fresh := _opened(run / NAME, now):
        return fresh
    index = _from_files(run)
    with suppress(OSError):  # somebody else's run, or a full disk: the rows are here all the same
        _write(run, index)
    index.execute("PRAGMA query_only = ON")
    return index


def stored_signature(index: sqlite3.Connection) -> str | None:
    """Of the files that an index was made from; None for a database that is no index of this
    version. Raises sqlite3.Error for a damaged one."""
    if any(_pragma(index, name) != value for name, value in _MARKS.items()):
        return None
    if [sql for (sql,) in index.execute(_TABLES_THERE)] != list(_tables()):
        return None
    if _pragma(index, "quick_check(1)") != "ok":
        return None
    made = index.execute("SELECT signature FROM made").fetchone()
    return made[0] if made else None


def connect(path: Path) -> sqlite3.Connection:
    """A database file, read-only. Raises sqlite3.Error."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def from_facts(facts: Facts, of: str) -> sqlite3.Connection:
    """An index in memory. of: signature of the files that the facts were read from."""
    index = sqlite3.connect(":memory:")
    with index:
        for name, value in _MARKS.items():
            index.execute(f"PRAGMA {name} = {value}")
        for statement in _tables():
            index.execute(statement)
        index.execute("INSERT INTO made VALUES (?)", (of,))
        for table in TABLES:
            names = columns(table)
            rows = map(attrgetter(*names), getattr(facts, table))
            index.executemany(
                f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})",
                ([_value(value) for value in row] for row in rows),
            )
    return index


def columns(table: str) -> dict[str, str]:
    """Column -> SQL type of one of TABLES."""
    return {field.name: _TYPES[str(field.type).split()[0]] for field in fields(TABLES[table][0])}


def _tables() -> Iterator[str]:
    yield "CREATE TABLE made (signature TEXT NOT NULL)"
    for table, (_, key) in TABLES.items():
        listed = ", ".join(f"{name} {type}" for name, type in columns(table).items())
        yield f"CREATE TABLE {table} ({listed}, PRIMARY KEY ({', '.join(key)}))"


def _value(value: Any) -> Any:
    """SQLite has no integers beyond 64 bits, and rounds what it is told in words; Python's, such as
    a seed, have no bound."""
    return str(value) if isinstance(value, int) and value.bit_length() > 63 else value


def _from_files(run: Path) -> sqlite3.Connection:
    with disk_errors(run, "read"):
        of = settled_signature(run)
    facts = read_facts(run)
    try:
        return from_facts(facts, of)
    except (sqlite3.Error, UnicodeEncodeError) as error:  # a list for a name, half a character
        raise ConfigError(
            f"{run}: its files say what no index can hold ({error}); `mtc-orchestrate registry "
            f"verify {run}` looks at each of them"
        ) from None


def _opened(path: Path, of: str) -> sqlite3.Connection | None:
    """The index in a file, if it is one, and of these files."""
    try:
        index = connect(path)
    except sqlite3.Error:
        return None
    with suppress(sqlite3.Error):
        if stored_signature(index) == of:
            return index
    index.close()
    return None


def _pragma(index: sqlite3.Connection, name: str) -> Any:
    return index.execute(f"PRAGMA {name}").fetchone()[0]


def _write(run: Path, index: sqlite3.Connection) -> None:
    for leftover in run.glob(f".{NAME}.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > LEFTOVER_S:
                leftover.unlink()
    write_bytes_atomic(run / NAME, index.serialize())
