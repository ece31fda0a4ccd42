"""Tables that fit the screen: columns where there is room for all of them, else lines for each row.

The first column names a row and is never cut: ids are there to be copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP, INDENT = 2, "  "  # columns between two columns: rich's own


def show_rows(
    console: Console,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Iterable[str] = ("state",),
) -> None:
    """Print a row of `heads` and all others. Figures stand right; the first column, and those named
    in `left`, stand left."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    if sum(widths) + GAP * (len(heads) - 1) <= console.width:
        console.print(_table(heads, rows, {heads[0], *left}))
        return
    for name, *cells in rows:
        console.print(Text(name), soft_wrap=True)
        for line in folded(_told(heads[1:], cells), console.width):
            console.print(Text(line), soft_wrap=True)


def folded(parts: Iterable[str], width: int) -> Iterator[str]:
    """Parts after commas, in as few indented lines as the width allows; no part is broken."""
    line = ""
    for part in parts:
        longer = f"{line}, {part}" if line else INDENT + part
        if line and len(longer) + len(",") > width:
            yield line + ","
            longer = INDENT + part
        line = longer
    if line:
        yield line


def _told(heads: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    for head, cell in zip(heads, cells, strict=True):
        if told := cell.strip():
            yield told if head == "state" else f"{head.strip()} {told}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: set[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
