"""Runs beside each other: the colour is the run, in every figure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.reporting.figures.base import (
    SERIES,
    Figure,
    axis,
    ceiling,
    place_axis,
    plain,
    thinned,
)
from orchestrator.reporting.figures.curves import height_of, line, token_axis
from orchestrator.reporting.gather import Gathered
from orchestrator.reporting.labels import name_all

Runs = Mapping[str, Gathered]  # by a name that no other has
POINTS = 200
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")


def colours(runs: Runs) -> dict[str, str]:
    return {name: SERIES[n % len(SERIES)] for n, name in enumerate(runs)}


def dashes(runs: Runs) -> dict[str, str]:
    """Of lines: beyond the eighth run, colours come again."""
    return {name: "solid" if n < len(SERIES) else "dot" for n, name in enumerate(runs)}


def sites_of(runs: Runs) -> dict[tuple[str, str], str]:
    """A label for each pair of sites that any of them has: `L03`."""
    pairs = {
        (spec["source"], spec["target"]): {"source": spec["source"], "target": spec["target"]}
        for run in runs.values()
        for spec in run.recorded["specs"].values()
    }
    named = name_all({f"{source}-{target}": spec for (source, target), spec in pairs.items()})
    return {pair: named["-".join(pair)].site for pair in pairs}


def fvu_by_layer(runs: Runs) -> Figure | None:
    sites = sites_of(runs)
    traces, values = [], []
    for number, (name, run) in enumerate(runs.items()):
        ones = run.evaluated
        at = [sites[pair_of(run, id)] for id in ones]
        fvu = [one["ordinary"]["fvu"] for one in ones.values()]
        values += fvu
        one_each = len(set(at)) == len(at)
        traces.append({
            "type": "scatter", "mode": "lines+markers" if one_each else "markers", "x": at,
            "y": fvu, "name": plain(name),
            "line": {"color": colours(runs)[name], "width": 1.2, "dash": dashes(runs)[name]},
            "marker": {"size": 9, "symbol": _SYMBOLS[number % len(_SYMBOLS)],
                       "color": colours(runs)[name]},
            "text": [plain(run.label(id)) for id in ones],
            "hovertemplate": "%{y:.3f}, %{text}",
        })  # fmt: skip
    if not values:
        return None
    places = list(dict.fromkeys(sites.values()))
    layout = {"xaxis": place_axis(places), "hovermode": "closest", "showlegend": True,
              "yaxis": axis("FVU", range=[0, ceiling(values, values)])}  # fmt: skip
    return Figure("fvu", "FVU by layer", traces, layout, "Of ordinary rows, held-out test text.",
                  height=360)  # fmt: skip


def fvu_against_l0(runs: Runs) -> Figure | None:
    """What sparsity buys: nearer to the lower left is better."""
    traces, values = [], []
    for number, (name, run) in enumerate(runs.items()):
        ones = run.evaluated
        fvu = [one["ordinary"]["fvu"] for one in ones.values()]
        values += fvu
        traces.append({
            "type": "scatter", "mode": "markers", "y": fvu, "name": plain(name),
            "x": [one["ordinary"]["l0"] for one in ones.values()],
            "marker": {"size": 9, "symbol": _SYMBOLS[number % len(_SYMBOLS)],
                       "color": colours(runs)[name], "opacity": 0.85},
            "text": [plain(run.label(id)) for id in ones],
            "hovertemplate": "FVU %{y:.3f}, L0 %{x:.1f}, %{text}",
        })  # fmt: skip
    if not values:
        return None
    layout = {"xaxis": axis("L0, nonzeros a row"), "hovermode": "closest",
              "showlegend": True,
              "yaxis": axis("FVU", range=[0, ceiling(values, values)])}  # fmt: skip
    note = "Every transcoder of every run; nearer to the lower left is better."
    return Figure("pareto", "FVU against L0", traces, layout, note, height=360)


def curves(runs: Runs) -> list[Figure]:
    """A figure for each pair of sites that at least two of them have trained."""
    found: list[Figure] = []
    for pair, label in sites_of(runs).items():
        traces, tokens = [], []
        there = set()
        for name, run in runs.items():
            for id, lines in run.curves.items():
                if lines and pair_of(run, id) == pair:
                    there.add(name)
                    shown = thinned(lines, POINTS)
                    tokens += [shown[0].get("tokens"), shown[-1].get("tokens")]
                    curve = line(shown, "fvu", colours(runs)[name], plain(name))
                    curve["line"]["dash"] = dashes(runs)[name]
                    traces.append(curve)
        if len(there) > 1:
            layout = {"xaxis": token_axis(tokens, heading=False), "showlegend": False,
                      "yaxis": axis(**height_of(traces)), "hovermode": "closest",
                      "margin": {"l": 36, "r": 8, "t": 8, "b": 32}}  # fmt: skip
            key = f"curve-{len(found)}"
            found.append(Figure(key, label, traces, layout, height=210, small=True))
    return found


def pair_of(run: Gathered, id: str) -> tuple[str, str]:
    spec = run.recorded["specs"][id]
    return spec["source"], spec["target"]
