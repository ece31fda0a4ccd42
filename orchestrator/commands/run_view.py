"""A run as its folder tells it: for `status`, `list --json` and `metrics`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mtc_core.errors import ConfigError, MtcError
from orchestrator.differing import differing
from orchestrator.registry.index import open_index
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.folder import RunFolder
from orchestrator.status_file import read_status
from orchestrator.summary import Ended, read_ended
from orchestrator.tables import show_rows
from orchestrator.verdict import broken_rules, passes_the_guide

CURVE_LINES = 20
BATCH_FIGURES = ("fvu", "fvu_by_prefix", "l0", "dead_share")


def run_state(folder: Path) -> dict[str, Any]:
    """How a run stands: JSON-able. A run without status.json never got to training."""
    return _state(folder, figures(folder))


def print_end(folder: Path, code: int) -> None:
    """The end of a run as JSON: its state, and the exit code."""
    click.echo(json.dumps({"exit_code": code, **run_state(folder)}, indent=2))


def listed_state(folder: Path) -> dict[str, Any]:
    """The same from the run's index, for a run among many. A run that cannot be read hides none of
    the others: its state is `unreadable`."""
    try:
        with closing(open_index(folder)) as index:
            return _state(folder, _indexed(index))
    except MtcError as error:
        return {"state": "unreadable", "reason": str(error), "run": str(folder), "transcoders": []}


def _state(folder: Path, rows_on_disk: list[Ended]) -> dict[str, Any]:
    live = read_status(folder) or {"state": "prepared"}
    known = {row["id"]: row for row in live.get("transcoders", [])}
    rows = []
    for ended in rows_on_disk:
        row = _with_batch(known.get(ended.id, {"id": ended.id, "step": 0, "state": "waiting"}))
        if ended.done:
            figures_of = {"test": ended.evaluation["ordinary"]} if ended.evaluation else {}
            row |= {"state": "done", **figures_of}
        elif ended.failure:
            row |= {"state": "failed", "reason": ended.failure}
        elif row["state"] in ("done", "failed"):  # its files were taken away since
            row |= {"state": "waiting"}
        rows.append(row)
    return {**live, "run": str(folder), "transcoders": rows}


def _with_batch(row: dict[str, Any]) -> dict[str, Any]:
    """A row of status.json whose figures, of the last logged training batch, are not to be taken
    for held-out ones."""
    batch = {name: row[name] for name in BATCH_FIGURES if name in row}
    rest = {name: value for name, value in row.items() if name not in BATCH_FIGURES}
    return {**rest, "batch": batch} if batch else rest


def _indexed(index: sqlite3.Connection) -> list[Ended]:
    """What `figures` reads from files, but of ordinary rows alone."""
    rows = index.execute(
        "SELECT id, state, reason, figures FROM transcoders "
        "LEFT JOIN populations ON transcoder = id AND population = 'ordinary' "
        "ORDER BY transcoders.rowid"
    )
    return [
        Ended(id, {"ordinary": json.loads(test)} if test else None, reason, state == "done")
        for id, state, reason, test in rows
    ]


def figures(folder: Path) -> list[Ended]:
    """The held-out figures of every transcoder of a run, as far as there are any."""
    run = RunFolder(folder.parent, folder.name)
    recorded = run.recorded()
    if not folder.exists():
        raise ConfigError(f"{folder} has been deleted, or moved")
    if recorded is None:  # it was there when the folder was found
        raise ConfigError(f"{folder} is just being begun anew; look again in a moment")
    return read_ended(run, list(recorded["specs"]))


def rows_with_verdicts(rows: list[Ended]) -> list[dict[str, Any]]:
    """JSON-able, for programs: what people see in a table and beneath it."""
    evaluations = {row.id: row.evaluation for row in rows if row.evaluation}
    broken = broken_rules(evaluations)
    verdicts = {
        id: {"verdict": {"breaks": broken[id], "passes_the_guide": passes_the_guide(one)}}
        for id, one in evaluations.items()
    }
    return [{**row.to_dict(), **verdicts.get(row.id, {})} for row in rows]


def curve(folder: Path, prefix: str) -> list[dict[str, Any]]:
    """The logged steps of one transcoder. Raises ConfigError unless one id begins so."""
    ids = [row.id for row in figures(folder)]
    matching = [id for id in ids if id == prefix] or [id for id in ids if id.startswith(prefix)]
    if len(matching) != 1:
        found = "no transcoder" if not matching else f"{len(matching)} transcoders"
        listed = "\n  ".join(matching or ids)
        raise ConfigError(f"{folder}: {found} whose id begins with {prefix!r}:\n  {listed}")
    path = RunFolder(folder.parent, folder.name).transcoder(matching[0]).metrics
    with disk_errors(path, "read"):
        return list(_lines(path)) if path.exists() else []


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            if number < len(lines):  # the last one may be half written
                raise ConfigError(f"{path}:{number}: damaged ({error}); delete the line") from None


def show_status(console: Console, state: dict[str, Any], rows_on_disk: list[Ended]) -> None:
    step, steps = state.get("step", 0), state.get("steps", 0)
    phase = f" ({state['phase']})" if state["state"] == "running" else ""
    head = f"{state['run']}: {state['state']}{phase}, step {step:,}/{steps:,}"
    console.print(head, soft_wrap=True)  # a path is not ours to fold
    if state["state"] == "running" and (doing := state.get("doing")):
        console.print(doing, soft_wrap=True)
    if rate := state.get("tokens_per_second"):
        console.print(f"{rate:,.0f} tokens/s in the last invocation")
    if said := state.get("pace"):
        console.print(said)
    rows = []
    for row in state["transcoders"]:
        test, batch = row.get("test", {}), row.get("batch", {})
        dead = batch.get("dead_share")
        rows.append(
            (
                f"{row['step']:,}",
                _figure(test.get("fvu", batch.get("fvu")), ".3f"),
                _figure(test.get("l0", batch.get("l0")), ".1f"),
                _figure(None if dead is None else 100 * dead, ".1f"),
                row["state"],
            )
        )
    ids = [row["id"] for row in state["transcoders"]]
    apart = differing([ended.spec for ended in rows_on_disk])
    cells = [
        (id, *words, *figures)
        for id, figures, *words in zip(ids, rows, *apart.values(), strict=True)
    ]
    heads = ("transcoder", *apart, "step", "FVU", "L0", "dead %", "state")
    show_rows(console, heads, cells, left=("state", "group_sizes"))
    if any("batch" in row and "test" not in row for row in state["transcoders"]):
        console.print("of the last logged training batch, unless done")
    for row in state["transcoders"]:
        if reason := row.get("reason"):
            console.print(f"{row['id']} {row['state']}: {reason}", soft_wrap=True)


def show_curve(console: Console, lines: list[dict[str, Any]]) -> None:
    """At most CURVE_LINES of the logged steps, evenly chosen, the last among them."""
    every = max(1, -(-len(lines) // CURVE_LINES))
    shown = f"one in {every} of {len(lines)} logged steps" if every > 1 else "all logged steps"
    console.print(f"{shown}; figures of the training batch of that step")
    heads = ("step", "loss", "FVU by prefix", "L0", "dead %", "extreme %", "lr")
    rows = [
        (
            f"{line['step']:,}",
            f"{line['loss']:.4f}",
            " ".join(f"{fvu:.3f}" for fvu in line["fvu_by_prefix"]),
            f"{line['l0']:.1f}",
            f"{100 * line['dead_share']:.1f}",
            f"{100 * line['extreme_row_share']:.1f}",
            f"{line['lr']:.2e}",
        )
        for line in lines[(len(lines) - 1) % every :: every]
    ]
    show_rows(console, heads, rows)


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
