"""SIGINT, SIGTERM, SIGHUP: the first asks the run to save and end. A second SIGINT or SIGTERM ends
it at once; SIGHUP never does, nor does one of the others after it. For nobody asks twice by it: a
terminal that closes has its shell and the kernel send one each, a machine that goes down sends
SIGTERM and SIGHUP, and Python hears those in the order of their numbers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAVING = "saving; press Ctrl-C again to end at once"


class Interrupted(Exception):
    """A signal asked for the end. unsaved: cells that had died before they could save."""

    def __init__(self, unsaved: Sequence[str] = ()) -> None:
        super().__init__()
        self.unsaved = unsaved

    def __str__(self) -> str:
        if self.unsaved:
            goes = "goes" if len(self.unsaved) == 1 else "go"
            return f"{', '.join(self.unsaved)} had died, and {goes} on from the last checkpoint"
        return "everything is saved"


class Interrupt:
    """Which signal came, if one did."""

    def __init__(self) -> None:
        self.signal_number = 0
        self._asked = False  # by SIGINT or SIGTERM

    def __bool__(self) -> bool:
        return bool(self.signal_number)

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self:
            raise Interrupted

    def note(self, number: int) -> bool:
        """A signal has come; whether it asks again, for an end at once."""
        self.signal_number = self.signal_number or number
        again = self._asked and number != signal.SIGHUP
        self._asked = self._asked or number != signal.SIGHUP
        return again

    @property
    def exit_code(self) -> int:
        return 128 + self.signal_number


def forget_alarm() -> None:
    """Ray's handler in C++ (2.60), which is there while Ray starts, has the process abort three
    seconds after a SIGTERM, whatever it is at then."""
    signal.alarm(0)


@contextmanager
def interrupts(told: str = SAVING) -> Iterator[Interrupt]:
    """Collect signals while inside; earlier handlers come back afterwards. told: at the first."""
    interrupt = Interrupt()

    def note(number: int, frame: object) -> None:
        first = not interrupt
        if interrupt.note(number):
            os._exit(interrupt.exit_code)
        forget_alarm()
        if not first:
            return
        with suppress(OSError):  # nobody may be there to read it
            # Not print: a signal may come in the middle of another print.
            os.write(2, told.encode() + b"\n")

    # nohup has SIGHUP ignored: whoever uses it wants a run that outlives its terminal.
    kept = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, note) for number in kept}
    try:
        yield interrupt
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
