"""The curves of growth.py as one picture: a panel each, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

PANEL_W, PANEL_H, LEFT, TOP, BOTTOM, GAP = 300, 220, 52, 46, 34, 24
TITLES = {
    "transcoders": "number of transcoders",
    "d_sae": "d_sae, times d_model",
    "k": "k",
    "groups": "groups (prefixes)",
    "batch": "rows a step",
}
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #444 }
.title { font-weight: 600; fill: #222 }
.line { fill: none; stroke: #2a78d6; stroke-width: 2 }
.dot { fill: #2a78d6 }
.grid { stroke: #8884; stroke-width: 1 }
@media (prefers-color-scheme: dark) { text { fill: #bbb } .title { fill: #eee } }
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """By value: tokens/s of the suite, milliseconds of one transcoder for a number of rows."""

    name: str
    values: Sequence[int]
    rates: Sequence[float]
    milliseconds: Sequence[float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def drawn(curves: Sequence[Curve]) -> str:
    """An SVG of milliseconds against each value, three panels in a row, from zero up."""
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / 3)
    width, height = columns * (PANEL_W + GAP), rows * PANEL_H + 30
    panels = "".join(
        _panel(curve, (i % 3) * (PANEL_W + GAP), 30 + (i // 3) * PANEL_H)
        for i, curve in enumerate(curves)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{STYLE}</style>'
        '<text x="8" y="18">milliseconds of one transcoder for 2,048 rows, its share of the '
        f"forward apart</text>{panels}</svg>\n"
    )


def _panel(curve: Curve, x0: float, y0: float) -> str:
    top = _round_up(max(curve.milliseconds) * 1.1)
    low, high = math.log2(curve.values[0]), math.log2(curve.values[-1])
    inner_w, inner_h = PANEL_W - LEFT - 20, PANEL_H - TOP - BOTTOM

    def place(value: float, cost: float) -> tuple[float, float]:
        share = (math.log2(value) - low) / ((high - low) or 1)
        return x0 + LEFT + share * inner_w, y0 + TOP + (1 - cost / top) * inner_h

    parts = [f'<text class="title" x="{x0 + LEFT}" y="{y0 + 26}">{TITLES[curve.name]}</text>']
    for cost in (0, top / 2, top):
        _, y = place(curve.values[0], cost)
        parts.append(
            f'<line class="grid" x1="{x0 + LEFT}" x2="{x0 + LEFT + inner_w}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text x="{x0 + LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{cost:g}</text>"
        )
    points = [place(*pair) for pair in zip(curve.values, curve.milliseconds, strict=True)]
    parts.append(
        f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
    )
    for value, (x, y) in zip(curve.values, points, strict=True):
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/><text x="{x:.1f}" '
            f'y="{y0 + PANEL_H - BOTTOM + 16}" text-anchor="middle">{value:,}</text>'
        )
    return "".join(parts)


def _round_up(value: float) -> float:
    """To 1, 2, 4 or 8 of its power of ten."""
    unit = 10 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 4, 8, 10) if step * unit >= value)
