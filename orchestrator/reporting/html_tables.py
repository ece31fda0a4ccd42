"""Tables of a report: what the terminal's have, in HTML's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.evaluating.show import HEADS, QUALITY_HEADS, quality_cells, splice_rows
from orchestrator.reporting.gather import Gathered, Invoked
from orchestrator.reporting.verdicts import mark
from orchestrator.summary import quality_table
from orchestrator.view import clock


@dataclass(frozen=True, slots=True)
class Row:
    """mood: of its last cell, a class of style.css."""

    cells: Sequence[str]
    mood: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """left: heads of columns of words; figures stand right."""

    heads: Sequence[str]
    rows: Sequence[Row]
    left: Sequence[str] = ()


def quality(run: Gathered) -> Table:
    """The terminal's columns, with a verdict for each."""
    heads, rows = quality_table(list(run.rows))
    marked = []
    for cells in rows:
        mood, words = mark(run, cells[0])
        marked.append(Row((*cells, words), mood))
    return Table((*heads, "verdict"), marked, ("transcoder", "group_sizes", "verdict"))


def spliced(splice: Mapping[str, Any]) -> Table:
    rows = [Row(cells) for cells in splice_rows({"joint": None, **splice})]
    return Table(HEADS, rows, ("transcoder",))


def spliced_prefixes(splice: Mapping[str, Any]) -> Table | None:
    """What each prefix by itself adds, where that was measured."""
    rows = [
        Row(
            (id, *(" ".join(f"{one[name]:.3f}" for one in found) for name in ("ce_increase", "kl")))
        )
        for id, figures in splice["transcoders"].items()
        if (found := figures.get("by_prefix"))
    ]
    return Table(("transcoder", "CE + by prefix", "KL by prefix"), rows, ("transcoder",)) if rows \
        else None  # fmt: skip


def own_text(quality: Mapping[str, Any]) -> Table:
    found = quality["transcoders"].items()
    rows = [Row((id, *quality_cells(one))) for id, one in found if "problem" not in one]
    return Table(QUALITY_HEADS, rows, ("transcoder",))


def invocations(run: Gathered) -> Table:
    heads = ("invocation", "began", "took", "outcome", "step", "rows", "tokens/s", "backend",
             "cells", "first step", "passes", "replaced", "host")  # fmt: skip
    left = ("began", "outcome", "backend", "host")
    return Table(heads, [Row(_cells(one, run)) for one in run.invocations], left)


def versions(run: Gathered) -> Table:
    """Of each invocation, as far as they differ from those of the one before."""
    names = list(dict.fromkeys(n for one in run.invocations for n in one.began.get("versions", {})))
    rows, before = [], None
    for one in run.invocations:
        now = [str(one.began.get("versions", {}).get(name) or "–") for name in names]
        if now != before:
            rows.append(Row((f"from {one.number}", *now)))
        before = now
    return Table(("invocation", *names), rows, ("invocation",))


def when(seconds: float | None) -> str:
    """A moment, by the clock of the machine that writes the page."""
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _cells(one: Invoked, run: Gathered) -> tuple[str, ...]:
    began, ended = one.began, one.ended
    last = one.progress[-1] if one.progress else {}
    alive = not ended and run.state == "running" and one is run.invocations[-1]
    step, first = ended.get("step", last.get("step")), ended.get("first_step_s")
    passes = sum(int(counts.get("passes", 0)) for counts in (ended.get("forwards") or {}).values())
    rate = one.rows_trained / one.training_s if one.training_s else 0.0
    return (
        str(one.number),
        when(began.get("began")),
        clock(one.seconds) if one.seconds is not None else "–",
        str(ended.get("outcome") or ("works" if alive else "killed")),
        f"{step:,}" if step is not None else "–",
        f"{one.rows_trained:,}",
        f"{rate:,.0f}" if rate else "–",
        str(began.get("backend", "–")),
        str(began.get("cells", "–")),
        f"{first:.1f} s" if first is not None else "–",
        f"{passes or int(last.get('passes') or 0):,}",
        str(len(ended.get("replaced") or [])),
        str(began.get("host", "–")),
    )
