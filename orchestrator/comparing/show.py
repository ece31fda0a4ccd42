"""A comparison on the screen: what is common, the figures, their means, and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.comparing.cells import cell, head, in_words, known, verdict_cell
from orchestrator.comparing.comparison import LOWEST, Comparison
from orchestrator.comparing.drawing import draw, marks
from orchestrator.tables import folded, show_rows

BEST, OTHER = "*", " "  # a star, or the room for one: figures stay under each other


def show_comparison(console: Console, comparison: Comparison) -> None:
    for line in _said_first(comparison):
        console.print(Text(line))
    console.print()
    means = comparison.means()
    if len(means) > 1:
        _show_series(console, comparison, means)
        console.print()
    _show_transcoders(console, comparison)
    series = {
        label: [(row["l0"], row["fvu"]) for row in rows if row["fvu"] is not None]
        for label, rows in comparison.series.items()
    }
    if any(series.values()):
        console.print()
        console.print(Text(draw(series, console.width)), soft_wrap=True)
        legend = [f"{mark} {label}" for label, mark in marks(series).items()]
        for line in folded(legend, console.width):
            console.print(Text(line), soft_wrap=True)


def _said_first(comparison: Comparison) -> Iterator[str]:
    if comparison.incomparable:
        yield f"not comparable: they differ in {'; '.join(comparison.incomparable)}"
    if comparison.common:
        listed = (f"{name} {in_words(name, value)}" for name, value in comparison.common.items())
        yield f"in common: {', '.join(listed)}"
    tokens = {row["spliced_tokens"] for row in comparison.rows} - {None}
    if len(tokens) > 1:
        measured = ", ".join(f"{count:,}" for count in sorted(tokens))
        yield f"CE + and KL are of different numbers of tokens: {measured}"


def _show_series(
    console: Console, comparison: Comparison, means: Mapping[str, Mapping[str, Any]]
) -> None:
    """What makes each another one, and its means."""
    pairs = next(iter(means.values()))["pairs"]
    comparable = not comparison.incomparable
    if pairs:
        many = f"the {pairs:,} pairs" if pairs > 1 else "the one pair"
        console.print(f"means over {many} of source and target that all of them have done")
    else:
        console.print("there is no pair of source and target that all of them have done")
    columns = known(list(means.values()))
    cells = []
    for label, one in means.items():
        best = [comparable and _is_lowest(one[name], means, name) for name in columns]
        figures = map(_starred, columns, (one[name] for name in columns), best)
        words = (words[label] for words in comparison.between_series.values())
        cells.append((label, *words, *figures))
    heads = ("series", *comparison.between_series, *_heads(columns))
    show_rows(console, heads, cells, left=comparison.between_series)


def _show_transcoders(console: Console, comparison: Comparison) -> None:
    apart: dict[str, Sequence[str]] = dict(comparison.within)
    if len(comparison.names) > 1:
        runs = [comparison.names[row["path"]] for row in comparison.rows]
        apart = {"run": runs, **apart}
    columns = known(comparison.rows)
    starred, cells = False, []
    for row, *words in zip(comparison.rows, *apart.values(), strict=True):
        best = [comparison.is_best(row, name) for name in columns]
        starred = starred or any(best)
        figures = map(_starred, columns, (row[name] for name in columns), best)
        cells.append((row["id"], *words, *figures, verdict_cell(row)))
    heads = ("transcoder", *apart, *_heads(columns), "verdict")
    show_rows(console, heads, cells, left=(*apart, "verdict"))
    if starred:
        console.print(f"{BEST} lowest of those with the same source and target")


def _is_lowest(value: float | None, means: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    values = [one[name] for one in means.values()]
    return name in LOWEST and None not in values and value == min(values) < max(values)


def _heads(columns: Sequence[str]) -> list[str]:
    return [head(name) + OTHER * (name in LOWEST) for name in columns]


def _starred(column: str, value: float | None, best: bool) -> str:
    shown = cell(column, value)
    return shown + (BEST if best else OTHER) if shown and column in LOWEST else shown
