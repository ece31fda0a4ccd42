"""What a producer does next, and who may have what: plain bookkeeping, without a model or a thread.

Readers that are about as far go through one stream together. One that has fallen behind, because
it was started anew from a checkpoint, gets a second one, of lower priority, until it has caught up:
its portions are computed again, and the others do not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.cells.portions import Portions
from orchestrator.exchange.stream import Reader, Stream, Task


@dataclass(frozen=True, slots=True)
class Turn:
    """A task of a stream."""

    stream: Stream
    task: Task
    late: bool  # for readers that lag


class Desk:
    """Of one producer. Readers are known by a name that is another after each start."""

    def __init__(self, portions: Portions, index: int, count: int, expected: Iterable[str]) -> None:
        """Nothing is run before all the expected readers have asked, or have left: those that
        start together must not become laggards by seconds."""
        self._place = (portions, index, count)
        self._main, self._late = Stream(*self._place), Stream(*self._place)
        self._expected = set(expected)

    def ask(self, name: str, portion: int, cursor: int) -> None:
        """A reader is ready to take a portion, and needs none before the cursor any more. What it
        says may arrive in another order than it was said in."""
        self._expected.discard(name)
        stream = self._stream_of(name)
        reader = stream.readers.pop(name) if stream else Reader(cursor)
        reader.cursor = cursor = max(reader.cursor, cursor)
        reader.asked = {asked for asked in {*reader.asked, portion} if asked >= cursor}
        in_time = stream is self._main or not self._main.readers or cursor >= self._main.floor
        (self._main if in_time else self._late).readers[name] = reader
        self._main.free()
        if self._late.readers:
            self._late.free()
        else:
            self._late = Stream(*self._place)  # its buffer is as large as the other's

    def leave(self, name: str) -> None:
        """A reader has all that it needs, or is gone."""
        self._expected.discard(name)
        for stream in (self._main, self._late):
            stream.readers.pop(name, None)
            stream.free()
        if not self._main.readers:
            self._main, self._late = self._late, Stream(*self._place)

    def find(self, name: str, portion: int) -> Any | None:
        """What was published for a portion, if this reader may have it by now."""
        stream = self._stream_of(name)
        return stream.stock.get(portion) if stream else None

    def turn(self) -> Turn | None:
        """What to do next; None: all readers have what they can take."""
        if self._expected:
            return None
        for stream, late in ((self._main, False), (self._late, True)):
            if task := stream.task():
                return Turn(stream, task, late)
        return None

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
