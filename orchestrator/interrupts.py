"""SIGINT, SIGTERM, SIGHUP: the first asks the run to save and end, the second ends it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAVING = b"saving; press Ctrl-C again to end at once\n"


class Interrupted(Exception):
    """A signal asked for the end. unsaved: cells that had died before they could save."""

    def __init__(self, unsaved: Sequence[str] = ()) -> None:
        super().__init__()
        self.unsaved = unsaved

    def __str__(self) -> str:
        if self.unsaved:
            return f"{', '.join(self.unsaved)} had died, and goes on from the last checkpoint"
        return "everything is saved"


class Interrupt:
    """Which signal came, if one did."""

    def __init__(self) -> None:
        self.signal_number = 0

    def __bool__(self) -> bool:
        return bool(self.signal_number)

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self:
            raise Interrupted

    @property
    def exit_code(self) -> int:
        return 128 + self.signal_number


def forget_alarm() -> None:
    """Ray's handler in C++ (2.60), which is there while Ray starts, has the process abort three
    seconds after a SIGTERM, whatever it is at then."""
    signal.alarm(0)


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Collect signals while inside; earlier handlers come back afterwards."""
    interrupt = Interrupt()

    def note(number: int, frame: object) -> None:
        if interrupt:
            os._exit(interrupt.exit_code)
        interrupt.signal_number = number
        forget_alarm()
        with suppress(OSError):  # nobody may be there to read it
            os.write(2, SAVING)  # not print: a signal may come in the middle of another print

    # nohup has SIGHUP ignored: whoever uses it wants a run that outlives its terminal.
    kept = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, note) for number in kept}
    try:
        yield interrupt
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
