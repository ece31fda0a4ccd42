"""Questions over many runs: flat rows, one of each transcoder, or of each run.

    from orchestrator.registry.query import rows

    rows("runs", "k=32", "fvu<0.3")     # every transcoder under a root, by the rules of --where
    rows(["runs/a", "runs/b"])          # of these runs

Plain dictionaries, which pandas.DataFrame takes as they are. Loads neither torch nor ray. A root is
answered from its cache, which is made or renewed on the way: see `root_cache.py`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtc_core.errors import ConfigError
from mtc_core.places import place
from orchestrator.registry.columns import COLUMNS, HIGHEST, SHORT, TRANSCODER
from orchestrator.registry.filters import Condition, parse_filters
from orchestrator.registry.glance import glance
from orchestrator.registry.root_cache import NAME, RUN_COLUMNS, Progress, open_cache
from orchestrator.run_folder.disk_errors import disk_errors

Where = str | Path | Sequence[str | Path]
_FLAGS = [name for name, kind in TRANSCODER.items() if kind is bool]


def rows(where: Where, *filters: str) -> list[dict[str, Any]]:
    """A dictionary for each transcoder of a root, of a run, or of several of either, by run and in
    the order of its manifest. filters: as of --where. Raises ConfigError."""
    with open_runs(where) as runs:
        return runs.transcoders(parse_filters(filters))


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs whose rows are at hand. caches: by the folder that they lie in."""

    caches: Sequence[tuple[Path, sqlite3.Connection]]

    def transcoders(
        self, conditions: Sequence[Condition] = (), by: str | None = None, top: int | None = None
    ) -> list[dict[str, Any]]:
        """Rows of transcoders that meet every condition. by: best first, those that have it; top:
        so many of them."""
        found: list[dict[str, Any]] = []
        for parent, cache in self.caches:
            heads = {row["run"]: row for row in _heads(parent, cache)}
            found += _rows(cache, heads, conditions, by, top)
        if by and len(self.caches) > 1:
            found.sort(key=lambda row: row[by], reverse=HIGHEST[by])
        return found[:top]

    def count(self, conditions: Sequence[Condition], by: str) -> int:
        """How many transcoders meet every condition and have this."""
        where, values = _where([*conditions, _known(by)])
        asked = f"SELECT count(*) FROM transcoders t JOIN runs r ON r.run = t.run{where}"
        return sum(cache.execute(asked, values).fetchone()[0] for _, cache in self.caches)

    def unreadable(self) -> list[str]:
        """A sentence for each run that cannot be read, and so has no rows."""
        damaged = [Condition("run_state = 'unreadable'", (), ("run_state",))]
        return [f"{row['path']}: {row['run_reason']}" for row in self.runs(damaged)]

    def runs(self, conditions: Sequence[Condition] = ()) -> list[dict[str, Any]]:
        """Rows of runs, by name."""
        return [row for parent, cache in self.caches for row in _heads(parent, cache, conditions)]


@contextmanager
def open_runs(where: Where, progress: Progress = lambda done, of: None) -> Iterator[Runs]:
    """Runs of a root, a run, or several of either, as they are now. progress: is told of runs that
    have to be read. Raises ConfigError."""
    with ExitStack() as stack:
        caches = []
        for root, names in _by_parent([where] if isinstance(where, str | Path) else where):
            whole = names is None
            with disk_errors(root, "read"):
                listed = _listed(root) if names is None else names
                # A folder that merely holds a run or two is not ours to leave a file in.
                keep = whole or (root / NAME).exists()
                cache = open_cache(root, listed, whole, keep, progress)
            caches.append((root, stack.enter_context(closing(cache))))
        yield Runs(caches)


def column_of(by: str) -> str:
    """The column of what `--by` calls it. Raises ConfigError with the nearest valid name."""
    column = SHORT.get(by, by)
    if column not in HIGHEST:
        from orchestrator.messages import suggestion

        raise ConfigError(f"--by {by}: nothing is best by that{suggestion(by, [*SHORT, *HIGHEST])}")
    return column


def _by_parent(places: Sequence[str | Path]) -> list[tuple[Path, list[str] | None]]:
    """Folders that hold runs, and which are meant; None: all of them."""
    found: dict[Path, list[str] | None] = {}
    for given in places:
        path = place(str(given))
        if path.name in ("", ".."):
            path = path.resolve()
        with disk_errors(path, "read"):
            is_run = glance(str(path)) is not None
            if not is_run and not path.is_dir():
                raise ConfigError(f"{given}: no run folder, and no folder that holds any")
        if not is_run:
            found[path] = None
        elif (names := found.setdefault(path.parent, [])) is not None and path.name not in names:
            names.append(path.name)
    return list(found.items())


def _listed(root: Path) -> list[str]:
    """Runs are named in text; what is not even that was put there by somebody else."""
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.name.isprintable()]
    return sorted(names)


def _heads(
    parent: Path, cache: sqlite3.Connection, conditions: Sequence[Condition] = ()
) -> Iterator[dict[str, Any]]:
    names = RUN_COLUMNS
    where, values = _where(conditions)
    found = cache.execute(f"SELECT {', '.join(names)} FROM runs r{where} ORDER BY run", values)
    for run, *rest in found:
        yield {"run": run, "path": str(parent / run), **dict(zip(names[1:], rest, strict=True))}


def _rows(
    cache: sqlite3.Connection,
    heads: dict[str, dict[str, Any]],
    conditions: Sequence[Condition],
    by: str | None,
    top: int | None,
) -> Iterator[dict[str, Any]]:
    if by:
        conditions = [*conditions, _known(by)]
    order = f"{by} {'DESC' if by and HIGHEST[by] else 'ASC'}, " if by else ""
    where, values = _where(conditions)
    found = cache.execute(
        f"SELECT t.run, {', '.join(f't.{name}' for name in TRANSCODER)} FROM transcoders t "
        f"JOIN runs r ON r.run = t.run{where} ORDER BY {order}t.run, t.place LIMIT ?",
        (*values, -1 if top is None else top),
    )
    before = {run: tuple(head.values()) for run, head in heads.items()}
    for run, *rest in found:
        row = dict(zip(COLUMNS, (*before[run], *rest), strict=True))
        for name in _FLAGS:
            row[name] = row[name] == 1
        yield row


def _known(column: str) -> Condition:
    return Condition(f"{column} IS NOT NULL", (), (column,))


def _where(conditions: Sequence[Condition]) -> tuple[str, tuple[Any, ...]]:
    texts = [condition.sql for condition in conditions]
    values = tuple(value for condition in conditions for value in condition.values)
    return (f" WHERE {' AND '.join(texts)}" if texts else ""), values
