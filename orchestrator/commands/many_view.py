"""Many runs on the screen: for `list` and `best`; and as CSV."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import click
from rich.console import Console

from orchestrator.commands.terminal import make_console
from orchestrator.comparing.cells import USUAL, Row, as_spec, cell, head, verdict_cell
from orchestrator.differing import differing
from orchestrator.registry.columns import HIGHEST
from orchestrator.registry.query import Runs, Where, open_runs
from orchestrator.tables import show_rows

PATIENCE_S = 1.0


@contextmanager
def told_runs(where: Where) -> Iterator[Runs]:
    """`open_runs`, which tells how far it is where that takes long."""
    with ExitStack() as stack, open_runs(where, _told(stack)) as runs:
        stack.close()
        yield runs


def _told(stack: ExitStack) -> Callable[[int, int], None]:
    began, listener = time.monotonic(), None

    def progress(done: int, of: int) -> None:
        nonlocal listener
        spent = time.monotonic() - began
        if not done or spent < PATIENCE_S:
            return
        if listener is None:
            from orchestrator.evaluating.listener import listening

            listener = stack.enter_context(listening(make_console(stderr=True)))
        left = spent / done * (of - done)
        listener.progress(f"{of:,} runs are new or have changed: reading them", done / of, left)

    return progress


def show_list(console: Console, runs: Sequence[Row]) -> None:
    rows = [
        (
            run["path"],
            run["run_state"],
            f"{run['run_step'] or 0:,}/{run['steps'] or 0:,}",
            f"{run['done']}/{run['transcoders']}",
            cell("fvu", run["mean_fvu"]),
        )
        for run in runs
    ]
    show_rows(console, ("run", "state", "step", "done", "mean FVU"), rows)
    for run in runs:
        if run["run_reason"]:
            console.print(f"{run['path']}: {run['run_reason']}", soft_wrap=True)


def show_best(console: Console, rows: Sequence[Row], by: str, count: int) -> None:
    """count: of how many these are the best."""
    better = "higher" if HIGHEST[by] else "lower"
    many = f"the best {len(rows)} of {count:,}" if len(rows) < count else f"{count:,}"
    console.print(f"by {by}, {better} is better: {many} transcoders that have it")
    if not rows:
        return
    apart = differing([as_spec(row) for row in rows])
    columns = dict.fromkeys([by, *USUAL])
    cells = [
        (
            row["id"],
            row["run"],
            *words,
            *(cell(name, row[name]) for name in columns),
            verdict_cell(row),
        )
        for row, *words in zip(rows, *apart.values(), strict=True)
    ]
    heads = ("transcoder", "run", *apart, *map(head, columns), "verdict")
    show_rows(console, heads, cells, left=("run", "verdict"))


def write_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """RFC 4180, with a head; lists are JSON text, what is not known is empty."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_csv(row[name]) for name in columns] for row in rows)
    click.echo(out.getvalue(), nl=False)


def _csv(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
