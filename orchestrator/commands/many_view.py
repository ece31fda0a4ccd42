"""Many runs on the screen: for `list` and `best`; and as CSV."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import click
from rich.console import Console

from orchestrator.commands.terminal import make_console
from orchestrator.comparing.cells import Row, as_spec, cell, head, known, verdict_cell
from orchestrator.differing import differing
from orchestrator.registry.columns import COLUMNS, HIGHEST
from orchestrator.registry.query import Runs, Where, open_runs
from orchestrator.tables import show_rows

PATIENCE_S = 1.0
_TEXT = ("model", "model_commit", "dataset", "dataset_commit", "context_tokens", "holdout_tokens")


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
    apart = {name: tuple(str(row[name]) for row in rows) for name in _texts_apart(rows)}
    if apart:
        console.print(f"their figures do not compare: they differ in {', '.join(apart)}")
    apart |= differing([as_spec(row) for row in rows])
    columns = dict.fromkeys([by, *known(rows)])
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
    show_rows(console, heads, cells, left=("run", "verdict", *_TEXT))


def _texts_apart(rows: Sequence[Row]) -> list[str]:
    """What differs and makes figures say nothing about each other."""
    return [name for name in _TEXT if len({row[name] for row in rows}) > 1]


def write_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """RFC 4180, with a head; lists are JSON text, what is not known is empty."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    flags = [name for name in columns if COLUMNS[name] is bool]
    for row in rows:
        words = {name: str(row[name]).lower() for name in flags}
        told = {**row, **words}
        writer.writerow([told[name] for name in columns])
    click.echo(out.getvalue(), nl=False)
