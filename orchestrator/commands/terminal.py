"""The console that commands print to: colour on terminals only, whole lines in pipes."""

from __future__ import annotations

import os
import sys

from rich.console import Console

PIPE_COLUMNS = 1000  # nobody folds lines in a file


class PipeConsole(Console):
    """A Console that lets a reader which has gone be told as BrokenPipeError."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class EnduringConsole(Console):
    """A Console that falls silent when its reader has gone, or when what it prints to takes no more
    (a full disk, a terminal that was closed): what it tells of goes on."""

    def _check_buffer(self) -> None:  # of rich: all that is printed goes through it
        try:
            super()._check_buffer()
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.file = open(os.devnull, "w")  # noqa: SIM115 (it lasts as long as we do)
        stream = sys.stderr if self.stderr else sys.stdout
        os.dup2(self.file.fileno(), stream.fileno())  # Python flushes it once more at exit


def make_console(kind: type[Console] = PipeConsole, *, stderr: bool = False) -> Console:
    """Standard output, or error. rich honours NO_COLOR, TERM and COLUMNS; without a terminal it
    would cut lines at 80 columns, which tears the ids of long hook names."""
    narrow = (sys.stderr if stderr else sys.stdout).isatty() or "COLUMNS" in os.environ
    width = None if narrow else PIPE_COLUMNS
    return kind(width=width, highlight=False, markup=False, stderr=stderr)
