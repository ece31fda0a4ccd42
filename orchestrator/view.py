"""Progress of a run: a table that updates in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from orchestrator.live_table import Apart, live_table
from orchestrator.snapshot import Snapshot
from orchestrator.tables import folded

PLAIN_SECONDS = 5.0
BAR = 40  # columns
BESIDE_ROWS = 2  # lines: the table's own heads, and the cursor's


class View(Protocol):
    """Shows how a run stands; `note` is for a sentence that should stay on the screen."""

    def show(self, snapshot: Snapshot) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


def make_view(console: Console, apart: Apart) -> View:
    """apart: what tells the transcoders of this suite apart, beside their sites."""
    return LiveView(console, apart) if console.is_terminal else PlainView(console)


def headline(snapshot: Snapshot) -> str:
    """`training  step 120/204  1,604 tokens/s  0:52 left  mean batch FVU 0.248`"""
    parts = [f"{snapshot.phase:<11}", f"step {snapshot.step:,}/{snapshot.steps:,}"]
    left = snapshot.seconds_left
    if snapshot.phase == "training" and left is not None:
        parts += [f"{snapshot.tokens_per_second:,.0f} tokens/s", f"{clock(left)} left"]
    if known := [row.fvu for row in snapshot.transcoders if row.fvu is not None]:
        parts.append(f"mean batch FVU {sum(known) / len(known):.3f}")
    if failed := sum(row.state == "failed" for row in snapshot.transcoders):
        parts.append(f"{failed} failed")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def costs(snapshot: Snapshot) -> Iterator[str]:
    """What the time goes to: forwards, waits, processes that died, and who sets the pace."""
    if snapshot.passes:
        yield f"{snapshot.passes:,} forward passes"
    yield from (f"{what} {share:.0%}" for what, share in snapshot.shares)
    if snapshot.replaced:
        yield f"{snapshot.replaced} processes replaced"
    if snapshot.pace:
        yield snapshot.pace


class PlainView:
    """One line every few seconds, and one at each change of phase."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._phase, self._shown_at = "", 0.0

    def show(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if snapshot.phase == self._phase and now - self._shown_at < PLAIN_SECONDS:
            return
        self._phase, self._shown_at = snapshot.phase, now
        if snapshot.doing:
            self.note(snapshot.doing)
            return
        self.note(headline(snapshot))

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        pass


class LiveView:
    """A headline, what the time goes to, a bar, and a row for each transcoder, refreshed four times
    a second."""

    def __init__(self, console: Console, apart: Apart) -> None:
        self.console, self._apart = console, apart
        self._snapshot: Snapshot | None = None
        self._live = Live(
            console=console, get_renderable=self._picture, refresh_per_second=4, transient=True
        )
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        self._live.stop()

    def _picture(self) -> RenderableType:
        """Drawn when it is looked at: a run may take a step each millisecond."""
        now = self._snapshot
        if now is None or now.doing:
            return Text(now.doing if now else "")
        width, height = self.console.size
        head = [Text(headline(now)), *map(Text, folded(costs(now), width))]
        taken = sum(len(text.wrap(self.console, width)) for text in head)
        # Padding, because a bar by itself does not end its line.
        bar = Padding(ProgressBar(total=now.steps, completed=now.step, width=BAR), 0)
        room = height - taken - 1 - BESIDE_ROWS
        table, others = live_table(now.transcoders, self._apart, room, width)
        tail = [Text(line, no_wrap=True, overflow="crop") for line in (others,) if line]
        return Group(*head, bar, table, *tail)
