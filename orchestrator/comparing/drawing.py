"""FVU against L0, drawn in characters: a mark for each series, without colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_letters

WIDEST, HIGH = 100, 20
MARKS = "ox+*#@%&=~" + "".join(letter for letter in ascii_letters if letter not in "ox")

Points = Sequence[tuple[float, float]]  # L0, FVU


def marks(labels: Iterable[str]) -> dict[str, str]:
    """A character for each; after 60 they come again."""
    return {label: MARKS[number % len(MARKS)] for number, label in enumerate(labels)}


def draw(series: Mapping[str, Points], width: int) -> str:
    """Lines no longer than the width. Of two points in one place the later series is seen."""
    import plotext

    figure = plotext.figure  # the one there is
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(width, WIDEST), HIGH)
    points = [point for each in series.values() for point in each]
    for axis, values in zip(("x", "y"), zip(*points, strict=True), strict=True):
        figure.ruler(axis).lim(*_limits(values))
    for label, mark in marks(series).items():
        if series[label]:
            across, up = zip(*series[label], strict=True)
            figure.draw(figure.signal(list(across), list(up), marker=mark))
    figure.label("L0", "x")
    figure.label("FVU", "y")
    drawn = plotext.uncolorize(str(figure.build()))
    figure.clear()
    return "\n".join(line.rstrip() for line in drawn.splitlines()).rstrip("\n")


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """With some room on both sides; neither figure is below 0."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return max(0.0, low - room), high + room
