"""The suite at a glance: four panels that share their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from orchestrator.reporting.figures.base import (
    BLACK,
    ORANGE,
    RED,
    SOFT,
    Figure,
    Series,
    Trace,
    axis,
    ceiling,
    gap,
    place_axis,
    places_of,
    series_of,
)
from orchestrator.reporting.gather import Gathered
from orchestrator.verdict import DEAD, OFF_K

FVU, CE, L0, DEAD_SHARE = "FVU", "CE recovered", "L0 off k", "dead"
_RULES = {FVU: {"ridge", "groups", "behind"}, L0: {"l0"}, DEAD_SHARE: {"dead"}, CE: set[str]()}
_TITLES = {
    FVU: "FVU: 0 is perfect, 1 the mean",
    CE: "CE recovered",
    L0: "L0 off k, %",
    DEAD_SHARE: "dead latents, %",
}
_GAP_PX, _TOP_PX, _BOTTOM_PX = 34, 58, 28


def glance(run: Gathered) -> Figure | None:
    """FVU, what the model's predictions lose, L0 and dead latents of each transcoder."""
    evaluated = run.evaluated
    if not evaluated:
        return None
    panels = [panel for panel in _TITLES if panel != CE or _spliced(run)]
    series = [_done(one, evaluated) for one in series_of(run.named)]
    heights = {panel: 190 if panel == FVU else 84 for panel in panels}
    drawing = sum(heights.values()) + _GAP_PX * (len(panels) - 1)
    layout: dict[str, Any] = {"annotations": [], "shapes": []}
    traces: list[Trace] = []
    top = drawing
    for number, panel in enumerate(panels):
        name = f"y{number + 1}" if number else "y"
        ends = [(top - heights[panel]) / drawing, top / drawing]
        drawn = {FVU: _fvu, CE: _ce, L0: _l0, DEAD_SHARE: _dead}[panel](run, series, name)
        traces += drawn.traces
        layout[f"yaxis{name[1:]}"] = axis(domain=ends, anchor="x", nticks=5, **drawn.axis)
        layout["annotations"] += [_heading(_title(panel, run), ends[1])]
        layout["shapes"] += drawn.shapes
        top -= heights[panel] + _GAP_PX
    bad = frozenset(p for one in series for id, p in one.members if run.broken.get(id))
    places = places_of(series)
    between = gap(places)
    layout |= {
        "xaxis": {**place_axis(places, bad), "anchor": name, "showgrid": False},
        "barmode": "group",
        "scattermode": "group" if len(series) > 1 else "overlay",
        "hovermode": "x unified" if len(series) == 1 else "closest",
        "margin": {"l": 44, "r": 12, "t": _TOP_PX, "b": _BOTTOM_PX},
        # Above the first panel's heading.
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "top", "yref": "container",
                   "itemsizing": "constant"},
        "bargap": between,
        "scattergap": between,
    }  # fmt: skip
    height = drawing + _TOP_PX + _BOTTOM_PX
    return Figure("glance", "By layer", traces, layout, height=height)


class _Panel:
    def __init__(self, axis: dict[str, Any]) -> None:
        self.axis = axis
        self.traces: list[Trace] = []
        self.shapes: list[dict[str, Any]] = []


def _fvu(run: Gathered, series: Sequence[Series], y: str) -> _Panel:
    ones = run.evaluated
    ordinary = {id: one["ordinary"]["fvu"] for id, one in ones.items()}
    ridge = {id: one["ordinary"]["fvu_ridge"] for id, one in ones.items()}
    whole = {id: one["all"]["fvu"] for id, one in ones.items()}
    everything = [*ordinary.values(), *ridge.values(), *whole.values()]
    top = ceiling([*ordinary.values(), *ridge.values()], everything)
    panel = _Panel({"range": [0, top]})
    panel.traces += _bars(run, series, y, FVU, ordinary.__getitem__, ".3f", "ordinary rows")
    bars = len(places_of(series)) * len(series)
    ring = BLACK if len(series) > 1 else ORANGE  # on bars of any colour
    dash = 16 if bars <= 12 else 9 if bars <= 32 else 5
    for number, one in enumerate(series):
        for name, of, marker in (
            ("ridge (a linear map)", ridge, {"symbol": "line-ew", "size": dash, "color": BLACK,
                                             "line": {"width": 2, "color": BLACK}}),
            ("all rows", whole, {"symbol": "circle-open", "size": dash // 2, "color": ring,
                                 "line": {"width": 2}}),
        ):  # fmt: skip
            values = one.values(of.__getitem__)
            over = [value > top for value in values]
            symbols = ["triangle-up" if high else marker["symbol"] for high in over]
            panel.traces.append({
                "type": "scatter", "mode": "markers", "x": one.places, "yaxis": y,
                "y": [min(value, 0.98 * top) for value in values],
                "customdata": values, "hovertemplate": "%{customdata:.3f}", "name": name,
                "marker": marker | {"symbol": symbols}, "legendgroup": name,
                "showlegend": number == 0, "offsetgroup": one.name or "only",
            })  # fmt: skip
    return panel


def _ce(run: Gathered, series: Sequence[Series], y: str) -> _Panel:
    spliced = _spliced(run)
    panel = _Panel({"range": [0, 1.05]})

    def recovered(id: str) -> float | None:
        return spliced[id]["ce_recovered_zero"] if id in spliced else None

    panel.traces += _bars(run, series, y, CE, recovered, ".3f", "CE recovered")
    if (value := _joint(run)) is not None:
        panel.shapes.append(_level(min(max(value, 0.0), 1.05), y, ORANGE, "dash"))
    return panel


def _l0(run: Gathered, series: Sequence[Series], y: str) -> _Panel:
    ones = run.evaluated
    off = {id: 100 * (one["ordinary"]["l0"] / one["k"] - 1) for id, one in ones.items()}
    reach = 1.1 * max(2 * 100 * OFF_K, *map(abs, off.values()))
    panel = _Panel({"range": [-reach, reach], "zerolinecolor": SOFT})
    panel.traces += _bars(run, series, y, L0, off.__getitem__, "+.1f", "L0 off k, %")
    panel.shapes += [_level(sign * 100 * OFF_K, y, RED, "dot") for sign in (-1, 1)]
    return panel


def _dead(run: Gathered, series: Sequence[Series], y: str) -> _Panel:
    shares = {id: 100 * one["dead_share"] for id, one in run.evaluated.items()}
    panel = _Panel({"range": [0, 1.1 * max(100 * DEAD, *shares.values())]})
    panel.traces += _bars(run, series, y, DEAD_SHARE, shares.__getitem__, ".1f", "dead, %")
    panel.shapes.append(_level(100 * DEAD, y, RED, "dot"))
    return panel


def _bars(
    run: Gathered,
    series: Sequence[Series],
    y: str,
    panel: str,
    of: Callable[[str], Any],
    form: str,
    name: str,
) -> Iterator[Trace]:
    """A trace of good ones and one of those that break a rule which this panel shows, because a
    legend has one colour for each trace."""
    rules, several = _RULES[panel], len(series) > 1
    for one in series:
        named = panel != FVU
        parted: dict[bool, list[tuple[str, Any]]] = {False: [], True: []}
        for id, place in one.members:
            parted[bool(rules & set(run.broken[id]))].append((place, of(id)))
        for bad, pairs in parted.items():
            if not pairs:
                continue
            places, values = zip(*pairs, strict=True)
            marker: dict[str, Any] = {"color": RED if bad and not several else one.colour}
            if bad and several:
                marker["line"] = {"color": RED, "width": 3}
            # What is worse than nothing has no height, and says so.
            drawn = values if panel != CE else [v if v is None else max(v, 0.0) for v in values]
            told = f"{one.name}: {name}" if one.name else name
            yield {
                "type": "bar", "x": places, "y": drawn, "customdata": values, "yaxis": y,
                "marker": marker,
                "name": one.name if several else f"{name}, worse than it should be" * bad or name,
                "hovertemplate": f"%{{customdata:{form}}}<extra>{told}</extra>",
                "showlegend": not named,
                "legendgroup": f"{one.name}{bad and not several}",
                "offsetgroup": one.name or "only",
            }  # fmt: skip
            named = named or several


def _done(series: Series, evaluated: Any) -> Series:
    return Series(series.name, series.colour, [m for m in series.members if m[0] in evaluated])


def _spliced(run: Gathered) -> dict[str, Any]:
    return dict((run.splice or {}).get("transcoders", {}))


def _joint(run: Gathered) -> float | None:
    return ((run.splice or {}).get("joint") or {}).get("ce_recovered_zero")


def _title(panel: str, run: Gathered) -> str:
    if panel == CE and (value := _joint(run)) is not None:
        return f"{_TITLES[CE]}; dashed: all together {value:.3f}"
    return _TITLES[panel]


def _heading(text: str, y: float) -> dict[str, Any]:
    return {
        "text": text, "x": 0, "xref": "paper", "xanchor": "left", "y": y, "yref": "paper",
        "yanchor": "bottom", "showarrow": False, "font": {"color": SOFT, "size": 12},
    }  # fmt: skip


def _level(value: float, y: str, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": y, "y0": value, "y1": value,
        "line": {"color": colour, "width": 1, "dash": dash}, "layer": "above",
    }  # fmt: skip
