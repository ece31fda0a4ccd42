"""Does index.sqlite say what the files say? For `registry verify`; others just rebuild it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestrator.registry.facts import read_facts
from orchestrator.registry.index import NAME, SCHEMA_VERSION, connect, from_facts, stored_signature
from orchestrator.registry.rows import TABLES
from orchestrator.registry.signature import signature


def index_fault(run: Path) -> str | None:
    """What is wrong with the index. None: nothing, or there is none, or files are newer than it,
    so that the next reader rebuilds it. Raises ConfigError, OSError where the files cannot be
    read."""
    path = run / NAME
    if not path.exists():
        return None
    try:
        with closing(connect(path)) as there:
            of = stored_signature(there)
            if of is None:
                return f"is no index of version {SCHEMA_VERSION}, or damaged"
            with closing(from_facts(read_facts(run), of)) as files:
                wrong = _difference(there, files)
    except sqlite3.Error as error:
        return f"is damaged: {error}"
    return wrong if of == signature(run) else None  # else what differs came since


def _difference(there: sqlite3.Connection, files: sqlite3.Connection) -> str | None:
    for table, (_, key) in TABLES.items():
        said, true = (_rows(index, table, key) for index in (there, files))
        if differing := [name for name in {**said, **true} if said.get(name) != true.get(name)]:
            named = ", ".join(map(str, differing[0]))
            return f"table {table} differs from the files in {len(differing)} rows, such as {named}"
    return None


def _rows(index: sqlite3.Connection, table: str, key: tuple[str, ...]) -> dict[tuple, Any]:
    cursor = index.execute(f"SELECT {', '.join(key)}, * FROM {table}")
    return {row[: len(key)]: row for row in cursor}
