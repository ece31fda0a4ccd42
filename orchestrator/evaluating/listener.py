"""Who is told how a measurement goes: a line that updates in place on a terminal, plain lines now
and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orchestrator.view import PLAIN_SECONDS, clock


@dataclass(frozen=True, slots=True)
class Listener:
    """`say`: sentences that stay. `progress`: what is done, the share of it, seconds left if they
    are known. `check` raises where somebody wants the end."""

    say: Callable[[str], None]
    progress: Callable[[str, float, float | None], None]
    check: Callable[[], None]


QUIET = Listener(lambda text: None, lambda what, share, left: None, lambda: None)


@contextmanager
def listening(
    console: Console,
    check: Callable[[], None] = lambda: None,
    say: Callable[[str], None] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[Listener]:
    """A listener that prints. say: what takes sentences, if not the console. tell: who is told of
    the progress, beside the screen."""
    said = say or (lambda text: console.print(text, soft_wrap=True))
    if not console.is_terminal:
        yield Listener(said, _progress(_now_and_then(console), tell), check)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield Listener(said, _progress(lambda line: live.update(Text(line)), tell), check)


def _progress(
    *hearers: Callable[[str], None],
) -> Callable[[str, float, float | None], None]:
    def progress(what: str, share: float, left: float | None) -> None:
        for hearer in hearers:
            hearer(_line(what, share, left))

    return progress


def _now_and_then(console: Console) -> Callable[[str], None]:
    shown_at = 0.0

    def show(line: str) -> None:
        nonlocal shown_at
        if (now := time.monotonic()) - shown_at >= PLAIN_SECONDS:
            shown_at = now
            console.print(line, soft_wrap=True)

    return show


def _line(what: str, share: float, left: float | None) -> str:
    return what if left is None else f"{what}  {100 * share:.0f} %  {clock(left)} left"
