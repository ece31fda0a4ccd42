"""One pass through a producer's portions, for all the readers that go along with it.

Three rules. A portion is published once every reader that needs it has asked for it: so nobody
runs ahead of the slowest by more than the window that each asks within. It is kept until all of
them are past it. And the model is run over the next lot as soon as the last one is all published,
whether or not anybody has asked: that is what overlaps the forward with the training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.cells.portions import Portions


@dataclass(frozen=True, slots=True)
class Forward:
    """Run the model over a lot."""

    lot: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Hand out a portion of the lot that was run last."""

    portion: int


Task = Forward | Publish


@dataclass(slots=True)
class Reader:
    """cursor: the first portion that it still needs. asked: portions that it is ready to take."""

    cursor: int
    asked: set[int] = field(default_factory=set)


class Stream:
    """Of the producer that runs every `count`th lot from the `index`th on."""

    def __init__(self, portions: Portions, index: int, count: int) -> None:
        self._portions, self._index, self._count = portions, index, count
        self.readers: dict[str, Reader] = {}
        self.stock: dict[int, Any] = {}  # portion -> what was published
        self.buffer: Any = None  # whatever the producer keeps the rows of a lot in
        self._lot: int | None = None  # whose rows are in the buffer
        self._begun: int | None = None  # the lot that was asked for last

    @property
    def floor(self) -> int:
        """The first portion that a reader who joins can have without a forward of its own."""
        if self.stock:
            return min(self.stock)
        return 0 if self._begun is None else self._portions.of_lot(self._begun).start

    def free(self) -> None:
        """Let go of what nobody needs any more."""
        needed = self._needed
        for portion in [p for p in self.stock if needed is None or p < needed]:
            del self.stock[portion]

    def task(self) -> Task | None:
        """What to do next; None while readers are busy with what they have."""
        portion = self._missing
        if portion is None:
            return None
        lot = self._portions.lot_of(portion)
        if lot != self._lot:
            return Forward(lot)
        needing = [reader for reader in self.readers.values() if reader.cursor <= portion]
        return Publish(portion) if all(portion in reader.asked for reader in needing) else None

    def begin(self, lot: int) -> None:
        """The buffer is being filled with the rows of a lot, over those of another."""
        self._lot, self._begun = None, lot

    def forwarded(self, lot: int) -> None:
        """The buffer holds the rows of that lot now."""
        self._lot = lot

    def published(self, portion: int, handle: Any) -> None:
        self.stock[portion] = handle
        self.free()  # a reader may have gone meanwhile

    @property
    def _needed(self) -> int | None:
        """The first portion that any reader needs."""
        return min((reader.cursor for reader in self.readers.values()), default=None)

    @property
    def _missing(self) -> int | None:
        """The first of them that is ours and not published."""
        if (needed := self._needed) is None:
            return None
        mine = self._portions.of_producer(self._index, self._count, needed)
        return next((portion for portion in mine if portion not in self.stock), None)
