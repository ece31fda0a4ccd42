"""Progress of a run: a table that updates in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cells.status import TranscoderStatus
from orchestrator.suite import Suite
from orchestrator.tables import GAP

PLAIN_SECONDS = 5.0
ROWS_SHOWN = 30
BAR = 40  # columns
AROUND = 5  # lines beside the rows: headline, bar, heads, how many more, the cursor's


class View(Protocol):
    """Shows how a suite stands; `note` is for a sentence that should stay on the screen."""

    def reading(self, tokens: int, doing: str) -> None: ...
    def show(self, suite: Suite) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


def make_view(console: Console) -> View:
    return LiveView(console) if console.is_terminal else PlainView(console)


def headline(suite: Suite) -> str:
    """`training  step 120/204  1,604 tokens/s  0:52 left`"""
    parts = [f"{suite.phase:<11}", f"step {suite.step:,}/{suite.steps:,}"]
    left = suite.seconds_left
    if suite.phase == "training" and left is not None:
        parts += [f"{suite.tokens_per_second:,.0f} tokens/s", f"{clock(left)} left"]
    return "  ".join(parts)


def _reading(tokens: int, doing: str) -> str:
    return f"{doing}: {tokens:,} tokens" if tokens else doing


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class PlainView:
    """One line every few seconds, and one at each change of phase."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._phase, self._shown_at = "", 0.0

    def reading(self, tokens: int, doing: str) -> None:
        if self._due(doing):
            self.note(_reading(tokens, doing))

    def show(self, suite: Suite) -> None:
        if not self._due(suite.phase):
            return
        known = [row.fvu for row in suite.transcoders if row.fvu is not None]
        mean = f"  mean batch FVU {sum(known) / len(known):.3f}" if known else ""
        self.note(f"{headline(suite)}{mean}")

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        pass

    def _due(self, phase: str) -> bool:
        now = time.monotonic()
        due = phase != self._phase or now - self._shown_at >= PLAIN_SECONDS
        if due:
            self._phase, self._shown_at = phase, now
        return due


class LiveView:
    """A headline, a bar, and a row for each transcoder, refreshed four times a second."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def reading(self, tokens: int, doing: str) -> None:
        self._live.update(Text(_reading(tokens, doing)))

    def show(self, suite: Suite) -> None:
        # Padding, because a bar by itself does not end its line.
        bar = Padding(ProgressBar(total=suite.steps, completed=suite.step, width=BAR), 0)
        shown = max(1, min(ROWS_SHOWN, self.console.height - AROUND))
        table = _table(suite.transcoders, shown, self.console.width)
        self._live.update(Group(Text(headline(suite)), bar, table))

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        self._live.stop()


HEADS = ("transcoder", "step", "batch FVU", "L0", "dead %", "state")
_LEAVE_OUT = ("step", "dead %", "L0", "state")  # on a narrow screen, in this order


def _table(rows: Sequence[TranscoderStatus], shown: int, width: int) -> Table:
    """The first so many, a line each; what a narrow screen has no room for is left out."""
    columns = dict(zip(HEADS, zip(*map(_cells, rows[:shown]), strict=True), strict=True))
    for name in _LEAVE_OUT:
        if _width(columns) > width:
            del columns[name]
    if _width(columns) > width:  # the hash tells apart only those of one sweep
        columns["transcoder"] = tuple(id.rpartition("-")[0] for id in columns["transcoder"])
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(
            name, no_wrap=True, justify="left" if name in ("transcoder", "state") else "right"
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    hidden = len(rows) - shown
    if hidden > 0:
        table.add_row(f"and {hidden} more")
    return table


def _width(columns: dict[str, tuple[str, ...]]) -> int:
    widest = [max(map(len, (name, *cells))) for name, cells in columns.items()]
    return sum(widest) + GAP * (len(widest) - 1)


def _cells(row: TranscoderStatus) -> tuple[str, ...]:
    def figure(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    dead = None if row.dead_share is None else 100 * row.dead_share
    return (
        row.id,
        f"{row.step:,}",
        figure(row.fvu, ".3f"),
        figure(row.l0, ".1f"),
        figure(dead, ".1f"),
        row.state,
    )
