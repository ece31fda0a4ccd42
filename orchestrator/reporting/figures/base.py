"""What all figures of a page share: colours, axes, and the way into the page.

A figure is a plain dict of traces and layout. plotly's Python classes would check every property
as they build it, which takes a hundred times as long as the reports of a test run may; so a test
puts every figure through them instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.reporting.labels import Named, is_grid

# Okabe and Ito's colours, which colour-blind eyes tell apart; the same thing has the same colour in
# every figure. Red is kept for what is wrong.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, BROWN, GREY, BLACK = "#56B4E9", "#8C510A", "#8A929B", "#1B1F24"
RED, LINE, SOFT = "#CF222E", "#E6E9ED", "#5C6670"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, BROWN, BLACK, GREY)
_DARK, _LIGHT = (0x08, 0x30, 0x6B), (0x9E, 0xCA, 0xE1)
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (200, 205, 40))

Trace = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """key: unique on its page. note: a sentence beneath the title. small: one of many, side by
    side."""

    key: str
    title: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]
    note: str = ""
    height: int = 280
    small: bool = False

    def to_json(self) -> str:
        """For a script element: nothing in it can end that."""
        content = {"data": list(self.traces), "layout": {**_COMMON, **self.layout}}
        try:
            text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        except ValueError:  # an infinity in somebody's metrics.jsonl: a gap in the curve
            text = json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":"))
        return text.replace("<", "\\u003c")


_COMMON = {
    "font": {"family": 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif', "size": 12,
             "color": BLACK},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 48, "r": 12, "t": 8, "b": 36},
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    "hoverlabel": {"align": "left"},
}  # fmt: skip


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    named = {"title": {"text": title, "font": {"color": SOFT, "size": 12}}} if title else {}
    common = {"gridcolor": LINE, "zerolinecolor": LINE, "linecolor": LINE, "automargin": True}
    return {**common, **named, **more}


def plain(text: str) -> str:
    """Text that plotly shows as it is: it reads tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def by_depth(n: int) -> list[str]:
    """A colour for each of many that follow each other, from the first layer to the last."""
    if n <= len(SERIES):
        return list(SERIES[:n])
    return [_between(_VIRIDIS, i / (n - 1)) for i in range(n)]


def by_width(n: int) -> list[str]:
    """A colour for each prefix, or the group that ends it: the whole dictionary is the darkest."""
    return [_between((_LIGHT, _DARK), i / max(n - 1, 1)) for i in range(n)]


@dataclass(frozen=True, slots=True)
class Series:
    """Transcoders of one colour, each with its place along the axis."""

    name: str
    colour: str
    members: Sequence[tuple[str, str]]  # id, place

    def values(self, of: Callable[[str], Any]) -> list[Any]:
        return [of(id) for id, _ in self.members]

    @property
    def places(self) -> list[str]:
        return [place for _, place in self.members]


def series_of(named: Mapping[str, Named]) -> list[Series]:
    """A suite along an axis: sites, and a colour for each variant of a sweep; or else every
    transcoder by its label."""
    if not is_grid(named):
        return [Series("", BLUE, [(id, one.label) for id, one in named.items()])]
    variants = list(dict.fromkeys(one.variant for one in named.values()))
    return [
        Series(variant, colour, [(i, o.site) for i, o in named.items() if o.variant == variant])
        for variant, colour in zip(variants, SERIES, strict=False)
    ]


def places_of(series: Sequence[Series]) -> list[str]:
    return list(dict.fromkeys(place for one in series for place in one.places))


def place_axis(places: Sequence[str], bad: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Places in their order, as many of them named as there is room for; bad ones in red."""
    shown = axis(type="category", categoryorder="array", categoryarray=list(places))
    shown["range"] = [-0.5, len(places) - 0.5]  # markers would widen it by half a place
    if len(places) > 64:
        return shown
    texts = [_red(plain(place)) if place in bad else plain(place) for place in places]
    return {**shown, "tickmode": "array", "tickvals": list(places), "ticktext": texts}


def _red(text: str) -> str:
    return f'<span style="color:{RED};font-weight:bold">{text}</span>'


def gap(places: Sequence[str]) -> float:
    """Between bars: few of them would be as wide as walls."""
    return 0.7 if len(places) <= 4 else 0.5 if len(places) <= 8 else 0.3


def ceiling(usual: Sequence[float], all_values: Sequence[float]) -> float:
    """Where an axis from 0 ends, so that no outlier flattens the rest."""
    top = max(usual, default=0.0)
    return 1.08 * min(max(all_values, default=top), 1.6 * top) or 1.0


def thinned(items: Sequence[Any], points: int) -> list[Any]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(items) <= points:
        return list(items)
    return [items[round(i * (len(items) - 1) / (points - 1))] for i in range(points)]


def short(value: Any) -> float | None:
    """Five digits, which is more than a screen shows; None for what is no number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def _between(stops: Sequence[tuple[int, int, int]], share: float) -> str:
    at = share * (len(stops) - 1)
    low = min(int(at), len(stops) - 2)
    mixed = (
        round(a + (at - low) * (b - a)) for a, b in zip(stops[low], stops[low + 1], strict=True)
    )
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
