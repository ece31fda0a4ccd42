"""Where the time went: speed, shares of time, waits and memory, along the hours of work.

Out of lines of `invocations/NUMBER.progress.jsonl`, each with what had been done by then: what went
on between two of them is their difference. Invocations follow each other without the time between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from orchestrator.reporting.figures.base import (
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SERIES,
    SKY,
    SOFT,
    Figure,
    Trace,
    axis,
    plain,
    short,
    thinned,
)
from orchestrator.reporting.gather import Gathered, Lines
from orchestrator.suite import training_seconds

POINTS = 300
_STAGES = {
    "train": ("steps", BLUE),
    "forward": ("forward", GREEN),
    "feed": ("without rows", ORANGE),
    "wait": ("waits", PINK),
    "checkpoint": ("checkpoints", BROWN),
    "load": ("loading", GREY),
    "calibrate": ("calibrating", SKY),
    "test": ("testing", "#B8C4CE"),
}
_WAITS = {"feed": "without rows", "credit": "cells are full", "wait": "waits"}


@dataclass(frozen=True, slots=True)
class Span:
    """Between two lines. end: seconds of work by then. slowest: the cell, of its invocation, that
    all others end before; their names are other ones in another invocation."""

    end: float
    seconds: float
    slowest: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def rows(self) -> float:
        return max(0.0, _number(self.after, "rows_trained") - _number(self.before, "rows_trained"))

    def shares(self, process: str) -> dict[str, float]:
        """By stage, of what a process says that it did. A replaced one may say less than before:
        nothing, then."""
        was, now = (_stages(line).get(process, {}) for line in (self.before, self.after))
        spent = {stage: max(0.0, seconds - was.get(stage, 0.0)) for stage, seconds in now.items()}
        total = sum(spent.values())
        return {stage: seconds / total for stage, seconds in spent.items()} if total else {}


def speed(run: Gathered) -> list[Figure]:
    """All figures of time; none where no invocation has left its progress."""
    spans, begins = _spans([one.progress for one in run.invocations])
    if not spans:
        return []
    unit, per = _unit(spans[-1].end)
    ends = [short(span.end / per) for span in spans]
    layout = {
        "xaxis": axis(f"{unit} of work", rangemode="tozero"),
        "hovermode": "x unified",
        "shapes": [_begin(begin / per) for begin in begins],
    }
    figures = [_throughput(spans, ends, layout)]
    if any(span.slowest for span in spans):
        figures.append(_shares(spans, ends, layout))
        figures += _waits(spans, ends, layout)
    figures.append(_memory(spans, ends, layout))
    return figures


def _spans(invocations: Sequence[Lines]) -> tuple[list[Span], list[float]]:
    """In order, and where on the axis each invocation but the first begins."""
    found: list[Span] = []
    begins: list[float] = []
    used = [lines for lines in invocations if len(lines) > 1]
    for lines in used:
        offset = found[-1].end if found else 0.0
        if found:
            begins.append(offset)
        shown = thinned(lines, max(20, POINTS // len(used)))
        slowest = _slowest(lines[-1])
        for before, after in pairwise(shown):
            seconds = _number(after, "at") - _number(before, "at")
            if seconds > 0:
                end = offset + _number(after, "at") - _number(shown[0], "at")
                found.append(Span(end, seconds, slowest, before, after))
    return found, begins


def _throughput(spans: Sequence[Span], ends: Sequence[Any], layout: Mapping[str, Any]) -> Figure:
    trace: Trace = {
        "type": "scatter", "mode": _mode(spans), "x": list(ends), "line": _step(BLUE),
        "y": [short(span.rows / span.seconds) for span in spans], "name": "tokens/s",
        "hovertemplate": "%{y:,.0f} tokens/s", "showlegend": False,
    }  # fmt: skip
    note = "Of the slowest cell; 0 where it loads or measures."
    return Figure("throughput", "Throughput, tokens/s", [trace],
                  {**layout, "yaxis": axis("tokens/s", rangemode="tozero")}, note)  # fmt: skip


def _shares(spans: Sequence[Span], ends: Sequence[Any], layout: Mapping[str, Any]) -> Figure:
    shares = [span.shares(span.slowest) for span in spans]
    stages = [stage for stage in _STAGES if any(one.get(stage) for one in shares)]
    traces = [
        {
            "type": "scatter", "mode": "lines", "stackgroup": "time", "x": list(ends),
            "y": [short(100 * one.get(stage, 0.0)) for one in shares], "name": _STAGES[stage][0],
            "line": {"width": 0, "shape": "vh", "color": _STAGES[stage][1]},
            "fillcolor": _STAGES[stage][1], "hovertemplate": "%{y:.0f} %",
        }
        for stage in stages
    ]  # fmt: skip
    names = ", ".join(dict.fromkeys(span.slowest for span in spans if span.slowest))
    return Figure("stages", "What the time of the slowest cell went to, %", traces,
                  {**layout, "yaxis": axis("% of its time", range=[0, 100])}, names)  # fmt: skip


def _waits(
    spans: Sequence[Span], ends: Sequence[Any], layout: Mapping[str, Any]
) -> Iterator[Figure]:
    """Of everybody else: where producers feed cells, and where several cells train."""
    others = sorted({p for span in spans for p in _stages(span.after) if p != span.slowest})
    traces: list[Trace] = []
    for number, name in enumerate(others):
        shares = [span.shares(name) if name != span.slowest else {} for span in spans]
        for stage, words in _WAITS.items():
            if any(one.get(stage, 0.0) > 0.01 for one in shares):
                traces.append({
                    "type": "scatter", "mode": _mode(spans), "x": list(ends),
                    "y": [short(100 * one.get(stage, 0.0)) if one else None for one in shares],
                    "name": plain(f"{name}: {words}"), "hovertemplate": "%{y:.0f} %",
                    "line": _step(SERIES[number % len(SERIES)]) | {"dash": _dash(stage)},
                })  # fmt: skip
    if traces:
        yield Figure("waits", "Waits of the other processes, %", traces,
                     {**layout, "yaxis": axis("% of its time", range=[0, 100])})  # fmt: skip


def _memory(spans: Sequence[Span], ends: Sequence[Any], layout: Mapping[str, Any]) -> Figure:
    names = sorted({name for span in spans for name in span.after.get("resident_bytes") or {}})
    traces = [
        {
            "type": "scatter", "mode": _mode(spans), "x": list(ends), "name": plain(name),
            "y": [short(_number(span.after.get("resident_bytes") or {}, name) / 2**30) or None
                  for span in spans],
            "line": _step(SERIES[number % len(SERIES)]), "hovertemplate": "%{y:.2f} GiB",
        }
        for number, name in enumerate(names)
    ]  # fmt: skip
    return Figure("memory", "Resident memory by process, GiB", traces,
                  {**layout, "showlegend": True,
                   "yaxis": axis("GiB", rangemode="tozero")})  # fmt: skip


def _unit(seconds: float) -> tuple[str, float]:
    if seconds > 2 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if seconds > 180 else ("seconds", 1.0)


def _slowest(line: Mapping[str, Any]) -> str:
    """All cells train the same rows: the one that takes longest is the slowest."""
    stages = _stages(line)
    cells = {name: training_seconds(dict(one)) for name, one in stages.items() if "train" in one}
    return max(cells, key=lambda name: cells[name], default="")


def _stages(line: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    return line.get("stages") or {}


def _number(of: Mapping[str, Any], name: str) -> float:
    value = of.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _mode(spans: Sequence[Span]) -> str:
    return "lines" if len(spans) > 3 else "lines+markers"


def _step(colour: str) -> dict[str, Any]:
    return {"color": colour, "width": 1.6, "shape": "vh"}


def _dash(stage: str) -> str:
    return {"feed": "solid", "credit": "dash", "wait": "dot"}[stage]


def _begin(at: float) -> dict[str, Any]:
    return {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": SOFT, "width": 1, "dash": "dot"}}  # fmt: skip
