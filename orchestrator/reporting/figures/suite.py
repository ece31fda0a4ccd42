"""Held-out figures of the transcoders of a suite beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import median
from typing import Any

from orchestrator.reporting.figures.base import (
    BLUE,
    GREY,
    ORANGE,
    PINK,
    SKY,
    Figure,
    Trace,
    axis,
    by_width,
    gap,
    place_axis,
    plain,
)
from orchestrator.reporting.gather import Gathered

ALL = "all"  # together
OUTLIER = 8  # times the median: a bar that would flatten all others is cut, and says its height


def nonzeros(run: Gathered) -> Figure | None:
    """Which groups the nonzeros of a row are in."""
    shares = {id: one["ordinary"]["nonzeros_by_group"] for id, one in run.evaluated.items()}
    if not shares:
        return None
    places = [run.label(id) for id in shares]
    groups = max(map(len, shares.values()))
    traces = [
        {
            "type": "bar", "x": places, "name": f"group {group + 1}",
            "y": [100 * one[group] if group < len(one) else None for one in shares.values()],
            "marker": {"color": colour}, "hovertemplate": "%{y:.1f} %",
        }
        for group, colour in enumerate(by_width(groups))
    ]  # fmt: skip
    layout = {"barmode": "stack", "hovermode": "x unified",
              "bargap": gap(places), "xaxis": place_axis(places),
              "yaxis": axis("% of nonzeros", range=[0, 100])}  # fmt: skip
    note = "The first group has the latents that every prefix uses."
    return Figure("nonzeros", "Share of nonzeros by group", traces, layout, note)


def extreme_rows(run: Gathered) -> Figure | None:
    """How many rows are extreme, and how much of the variance is theirs."""
    ones = run.evaluated
    if not ones:
        return None
    places = [run.label(id) for id in ones]
    traces = [
        {
            "type": "bar", "x": places, "y": [100 * one[f"extreme_{of}_share"] for one in
                                              ones.values()],
            "name": name, "marker": {"color": colour}, "hovertemplate": "%{y:.2f} %",
        }
        for of, name, colour in (("row", "of rows", SKY), ("variance", "of variance", PINK))
    ]  # fmt: skip
    layout = {"barmode": "group", "hovermode": "x unified",
              "bargap": gap(places), "xaxis": place_axis(places),
              "yaxis": axis("%", range=[0, 100])}  # fmt: skip
    note = "A few rows of a model can have most of its variance; FVU of ordinary rows is without."
    return Figure("extreme", "Extreme rows: their share of held-out rows and variance", traces,
                  layout, note)  # fmt: skip


def densities(run: Gathered) -> list[Figure]:
    """How often latents fire: a figure for each transcoder, all with the same axes."""
    found = {id: one["ordinary"]["density_histogram"] for id, one in run.evaluated.items()}
    shares = {
        id: [100 * count / (sum(counts.values()) or 1) for count in counts.values()]
        for id, counts in found.items()
    }
    top = 1.08 * max((max(one) for one in shares.values()), default=1.0)
    return [
        Figure(
            f"density-{number}",
            run.label(id),
            [_histogram(list(found[id]), shares[id], list(found[id].values()))],
            {"xaxis": axis(type="category", tickangle=0, showgrid=False, **_sparse(found[id])),
             "yaxis": axis("% of latents" if number == 0 else "", range=[0, top]),
             "bargap": 0.08},
            height=170,
            small=True,
        )
        for number, id in enumerate(found)
    ]  # fmt: skip


def _histogram(names: Sequence[str], shares: Sequence[float], counts: Sequence[int]) -> Any:
    ends = [_decade(name) for name in names]
    return {
        "type": "bar", "x": ends, "y": list(shares), "customdata": list(counts),
        "marker": {"color": [GREY if name == "never" else BLUE for name in names]},
        "hovertemplate": "%{y:.1f} %, %{customdata:,} latents<extra>up to %{x}</extra>",
        "showlegend": False,
    }  # fmt: skip


def _sparse(names: Iterable[str]) -> dict[str, Any]:
    """There is no room to name each decade: the first, the last, and every second between."""
    ends = [_decade(name) for name in names]
    shown = [ends[0], *ends[-1:1:-2][::-1]] if len(ends) > 4 else ends
    return {"tickmode": "array", "tickvals": shown, "ticktext": shown}


def _decade(name: str) -> str:
    """`<=0.001` as `10⁻³`."""
    if not name.startswith("<="):
        return name
    power = round(math.log10(float(name.removeprefix("<="))))
    return f"10<sup>−{-power}</sup>" if power else "1"


def spliced(run: Gathered) -> Figure | None:
    """What each transcoder in its place adds to the model's cross-entropy, and all together."""
    splice = run.splice or {}
    figures = splice.get("transcoders") or {}
    if not figures:
        return None
    rows = [(run.named[id].label if id in run.named else id, one) for id, one in figures.items()]
    if splice.get("joint"):
        rows.append((ALL, splice["joint"]))
    places = [place for place, _ in rows]
    colours = [ORANGE if place == ALL else BLUE for place in places]
    added = [one["ce_increase"] for _, one in rows]
    errors = [one.get("ce_increase_se") or 0.0 for _, one in rows]
    ends = [(value - error, value + error) for value, error in zip(added, errors, strict=True)]
    top = 1.05 * min(max(high for _, high in ends), max(OUTLIER * median(added), 0.02))
    low = 1.05 * min(0.0, *(low for low, _ in ends))
    traces: list[Trace] = [
        {
            "type": "bar", "x": places, "y": added,
            "text": [f"{value:.2f}" if value > top else "" for value in added],
            "textposition": "inside", "insidetextanchor": "start", "textangle": 0,
            "error_y": {"type": "data", "array": errors,
                        "thickness": 1.2, "width": 3, "color": "#444"},
            "marker": {"color": colours}, "name": "every row spliced",
            "hovertemplate": "%{y:+.3f} nats", "showlegend": False,
        },
        {
            "type": "scatter", "mode": "markers", "x": places, "name": "extreme rows left alone",
            "y": [one["extreme_left"]["ce_increase"] for _, one in rows],
            "marker": {"symbol": "diamond-open", "size": 8, "color": PINK, "line": {"width": 2}},
            "hovertemplate": "%{y:+.3f} nats",
        },
    ]  # fmt: skip
    layout = {"hovermode": "x unified", "showlegend": True, "bargap": gap(places),
              "xaxis": place_axis(places),
              "yaxis": axis("nats a token", range=[low, top])}  # fmt: skip
    note = (
        f"Cross-entropy that reconstructions add, ± a standard error, on {splice['tokens']:,} "
        f"tokens; the model's own is {splice['ce_clean']:.3f}."
    )
    return Figure("spliced", "One at a time, and all together", traces, layout, note)


def prefix_names(spec: Any) -> list[str]:
    """`first 64`, `all 256`."""
    *inner, whole = accumulate(spec["group_sizes"])
    return [*(f"first {width:,}" for width in inner), plain(f"all {whole:,}")]
