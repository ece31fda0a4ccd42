"""Training curves: of the training batch, along the tokens read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.reporting.figures.base import (
    SOFT,
    Figure,
    Trace,
    axis,
    by_depth,
    by_width,
    plain,
    short,
    thinned,
)
from orchestrator.reporting.figures.suite import prefix_names
from orchestrator.reporting.gather import Gathered, Lines

POINTS, LEAST, ALL_POINTS = 300, 60, 120_000  # of a curve; of all curves of a page
NAMED = 12  # curves that a legend has room for
RANGE = 1.1  # of FVU: what a first step says above it is of no interest


def overview(run: Gathered) -> list[Figure]:
    """All transcoders in one picture: FVU of the whole dictionary, and dead latents."""
    trained = {id: lines for id, lines in run.curves.items() if lines}
    if not trained:
        return []
    colours = by_depth(len(trained))
    fvu, dead = (
        [
            line(
                thinned(lines, points(run)), name, colour, plain(run.label(id)), times
            )
            for (id, lines), colour in zip(trained.items(), colours, strict=True)
        ]
        for name, times in (("fvu", 1), ("dead_share", 100))
    )  # fmt: skip
    legend = {"showlegend": 1 < len(trained) <= NAMED}
    note = "From dark to light: from the first transcoder to the last." * (len(trained) > NAMED)
    return [
        Figure("curves", "FVU of the training batch", fvu,
               legend | _layout(trained.values(), "FVU", height_of(fvu)), note, 340),
        Figure("curves-dead", "Dead latents while training", dead,
               legend | _layout(trained.values(), "% of latents", {"rangemode": "tozero"}),
               note, 340),
    ]  # fmt: skip


def by_prefix(run: Gathered) -> list[Figure]:
    """A figure for each transcoder, with all its prefixes."""
    trained = {id: lines for id, lines in run.curves.items() if lines}
    drawn = {id: _prefixes(run, id, lines) for id, lines in trained.items()}
    top = height_of([trace for traces in drawn.values() for trace in traces])
    legend = {
        "showlegend": not legend_of_prefixes(run),
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"size": 10}},
    }
    return [
        Figure(
            f"prefixes-{number}",
            run.label(id),
            traces,
            {**_layout([trained[id]], "", top, heading=False), **legend,
             "margin": {"l": 40, "r": 8, "t": 8, "b": 32}},
            height=200,
            small=True,
        )
        for number, (id, traces) in enumerate(drawn.items())
    ]  # fmt: skip


def legend_of_prefixes(run: Gathered) -> list[tuple[str, str]]:
    """(name, colour) of each prefix, where all transcoders have the same: one legend will do."""
    all_names = {tuple(prefix_names(spec)) for spec in run.recorded["specs"].values()}
    if len(all_names) != 1:
        return []
    (names,) = all_names
    return list(zip(names, by_width(len(names)), strict=True))


def _prefixes(run: Gathered, id: str, lines: Lines) -> list[Trace]:
    names = prefix_names(run.recorded["specs"][id])
    shown = thinned(lines, points(run))
    return [
        line(shown, "fvu_by_prefix", colour, name, which=which)
        for which, (name, colour) in enumerate(zip(names, by_width(len(names)), strict=True))
    ]


def points(run: Gathered) -> int:
    """Of each curve, so that a page of a thousand transcoders still opens."""
    curves = sum(len(spec["group_sizes"]) + 2 for spec in run.recorded["specs"].values())
    return max(LEAST, min(POINTS, ALL_POINTS // curves))


def line(
    lines: Sequence[Mapping[str, Any]],
    name: str,
    colour: str,
    label: str,
    times: float = 1,
    which: int | None = None,
) -> Trace:
    """One curve; which: of a list, as fvu_by_prefix."""
    found = [one.get(name) for one in lines]
    if which is not None:
        found = [one[which] if one and which < len(one) else None for one in found]
    return {
        "type": "scatter",
        "mode": "lines" if len(lines) > 3 else "lines+markers",
        "x": [one.get("tokens") for one in lines],
        "y": [short(times * one) if isinstance(one, int | float) else None for one in found],
        "line": {"color": colour, "width": 1.6},
        "name": label,
        "hovertemplate": "%{y:.4g}, %{x:.3s} tokens",
    }


def _layout(curves: Any, y: str, more: Any, heading: bool = True) -> dict[str, Any]:
    return {
        "xaxis": token_axis([one["tokens"] for lines in curves for one in (lines[0], lines[-1])],
                            heading),
        "yaxis": axis(y, **more),
        "hovermode": "closest",
    }  # fmt: skip


def token_axis(tokens: Sequence[float], heading: bool = True) -> dict[str, Any]:
    """Logarithmic, with ticks at powers of ten where there are enough of them."""
    known = [count for count in tokens if count and count > 0]
    decades = math.log10(max(known) / min(known)) if known else 0
    ticks = {"dtick": 1} if decades >= 2 else {"nticks": 4}
    return axis("tokens" if heading else "", type="log", tickformat="~s", minor={"ticks": "outside",
                "ticklen": 3, "tickcolor": SOFT}, **ticks)  # fmt: skip


def height_of(traces: Sequence[Trace]) -> dict[str, Any]:
    """From 0; what first steps say above RANGE is cut, unless it stays there."""
    known = [[y for y in trace["y"] if y is not None] for trace in traces]
    top = max((max(one) for one in known if one), default=1.0)
    last = max((one[-1] for one in known if one), default=1.0)
    return {"range": [0, min(1.05 * top, max(RANGE, 1.2 * last))]}
