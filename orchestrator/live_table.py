"""The table of a run at work: a line for each transcoder, as many as the screen has, and a line for
all others. A narrow screen leaves out what matters least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from orchestrator.cells.status import TranscoderStatus
from orchestrator.tables import GAP

ROWS_SHOWN = 60
ID = "transcoder"
HEADS = ("step", "batch FVU", "L0", "dead %", "state")
_LEAVE_OUT = ("step", "dead %", "L0", "state")  # in this order
Apart = Mapping[str, Mapping[str, str]]  # a column's name -> a word for each id


def live_table(
    rows: Sequence[TranscoderStatus], apart: Apart, height: int, width: int
) -> tuple[Table, str]:
    """So many lines of them, those that failed first, and the rest in words (`and 9 more: …`)."""
    most = max(1, min(ROWS_SHOWN, height))
    fits = len(rows) <= most
    wanted = [*range(len(rows))] if fits else _chosen(rows, max(1, most - 1))
    columns = _columns(rows, apart, wanted)
    for name in _LEAVE_OUT:
        if _width(columns) > width:
            del columns[name]
    if _width(columns) > width:  # the hash tells apart only those of one sweep
        columns[ID] = tuple(id.rpartition("-")[0] for id in columns[ID])
    table = Table(box=None, pad_edge=False)
    for name in columns:
        left = name in (ID, "state", "group_sizes")
        table.add_column(name, no_wrap=True, justify="left" if left else "right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    shown = set(wanted)
    return table, _others([row for i, row in enumerate(rows) if i not in shown])


def _chosen(rows: Sequence[TranscoderStatus], count: int) -> list[int]:
    """Which of them: what went wrong is never out of sight. In the suite's order."""
    failed = [i for i, row in enumerate(rows) if row.state == "failed"]
    others = [i for i, row in enumerate(rows) if row.state != "failed"]
    return sorted([*failed, *others][:count])


def _columns(
    rows: Sequence[TranscoderStatus], apart: Apart, wanted: Sequence[int]
) -> dict[str, tuple[str, ...]]:
    columns = {ID: tuple(rows[i].id for i in wanted)}
    for name, words in apart.items():
        columns[name] = tuple(words.get(rows[i].id, "") for i in wanted)
    figures = [_cells(rows[i]) for i in wanted]
    return columns | {name: tuple(row[n] for row in figures) for n, name in enumerate(HEADS)}


def _cells(row: TranscoderStatus) -> tuple[str, ...]:
    def figure(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    dead = None if row.dead_share is None else 100 * row.dead_share
    return (
        f"{row.step:,}",
        figure(row.fvu, ".3f"),
        figure(row.l0, ".1f"),
        figure(dead, ".1f"),
        row.state,
    )


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    widest = [max(map(len, (name, *cells))) for name, cells in columns.items()]
    return sum(widest) + GAP * (len(widest) - 1)


def _others(rows: Sequence[TranscoderStatus]) -> str:
    """`and 9 more: 7 training, 2 done, batch FVU 0.112 to 0.540`"""
    if not rows:
        return ""
    return f"and {len(rows)} more: {', '.join(_told(rows))}"


def _told(rows: Sequence[TranscoderStatus]) -> Iterator[str]:
    for state, count in Counter(row.state for row in rows).items():
        yield f"{count} {state}"
    if fvus := [row.fvu for row in rows if row.fvu is not None]:
        yield f"batch FVU {min(fvus):.3f} to {max(fvus):.3f}"
