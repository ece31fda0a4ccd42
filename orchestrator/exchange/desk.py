"""What a producer does next, and who may have what: plain bookkeeping, without a model or a thread.

Readers that are about as far go through one stream together. One that has fallen behind, because
it was started anew from a checkpoint, gets a second one until it has caught up: its portions are
computed again, when there is nothing to do for the others. They do not wait for it, unless there is
always something to do for them: then the forward is what all wait for, and the fewest forwards are
those that bring everybody together first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.cells.portions import Portions
from orchestrator.exchange.stream import Forward, Reader, Stream, Task

PATIENCE = 2  # lots that are run for the others while a laggard waits


@dataclass(frozen=True, slots=True)
class Turn:
    """A task of a stream."""

    stream: Stream
    task: Task
    late: bool  # for readers that lag


class Desk:
    """Of one producer. Readers are known by a name that is another after each start."""

    def __init__(self, portions: Portions, index: int, count: int, expected: Iterable[str]) -> None:
        """expected: readers that are about to ask; see `expect`."""
        self._place = (portions, index, count)
        self._main, self._late = Stream(*self._place), Stream(*self._place)
        self._expected = set(expected)
        self._gone: set[str] = set()
        self._begun = False  # whether anything was run for those who read now
        self._passed_over = 0

    def expect(self, names: Iterable[str]) -> None:
        """These are about to ask, if they have not yet. Where nobody else reads they are waited
        for, so that such as start together do not become laggards by seconds."""
        self._expected |= {name for name in set(names) - self._gone if not self._stream_of(name)}

    def ask(self, name: str, portion: int, cursor: int) -> bool:
        """A reader is ready to take a portion, and needs none before the cursor any more. What it
        says may arrive in another order than it was said in; False for one that has left."""
        if name in self._gone:
            return False
        self._expected.discard(name)
        stream = self._stream_of(name)
        reader = stream.readers.pop(name) if stream else Reader(cursor)
        reader.cursor = cursor = max(reader.cursor, cursor)
        reader.asked = {asked for asked in {*reader.asked, portion} if asked >= cursor}
        in_time = stream is self._main or not self._begun or cursor >= self._main.floor
        (self._main if in_time else self._late).readers[name] = reader
        self._main.free()
        if self._late.readers:
            self._late.free()
        else:
            self._late = Stream(*self._place)  # its buffer is as large as the other's
        return True

    def leave(self, name: str) -> None:
        """A reader has all that it needs, or is gone. It does not come back."""
        self._gone.add(name)
        self._expected.discard(name)
        for stream in (self._main, self._late):
            stream.readers.pop(name, None)
            stream.free()
        if not self._main.readers:
            self._main, self._late = self._late, Stream(*self._place)
            self._begun = bool(self._main.readers)

    def find(self, name: str, portion: int) -> Any | None:
        """What was published for a portion, if this reader may have it by now."""
        stream = self._stream_of(name)
        return stream.stock.get(portion) if stream else None

    def turn(self) -> Turn | None:
        """What to do next; None: all readers have what they can take."""
        if self._expected and not self._begun:
            return None
        main, late = self._main.task(), self._late.task()
        if late and (main is None or self._passed_over >= PATIENCE):
            return Turn(self._late, late, True)
        return Turn(self._main, main, False) if main else None

    def begin(self, turn: Turn) -> None:
        """A forward of that turn begins."""
        assert isinstance(turn.task, Forward)
        self._begun = True
        if not turn.late:
            waiting = self._late.task() is not None
            self._passed_over = self._passed_over + 1 if waiting else 0
        turn.stream.begin(turn.task.lot)

    @property
    def pressing(self) -> bool:
        """Whether there is something to do that goes before a forward begun for laggards."""
        return self._main.task() is not None and self._passed_over < PATIENCE

    @property
    def lagging(self) -> bool:
        """Whether anybody is served by a forward of its own."""
        return bool(self._late.readers)

    @property
    def stocked(self) -> int:
        """Portions that are held for readers now."""
        return len(self._main.stock) + len(self._late.stock)

    def _stream_of(self, name: str) -> Stream | None:
        return next((s for s in (self._main, self._late) if name in s.readers), None)
