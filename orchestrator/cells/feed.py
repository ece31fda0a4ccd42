"""Where a cell's rows come from: a model of its own (here), or producers (see exchange)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from mtc_core.producer import Activations
from orchestrator.cells.forwarder import Forwarder, Lot
from orchestrator.cells.job import Forward
from orchestrator.cells.portions import Portions


class Feed(Protocol):
    """Portions one after the other, in ascending order; some may be left out."""

    stage: str  # what waiting for it is counted as

    def load(self) -> Activations:
        """Get ready: rows for a rehearsal. Tokens need not be there yet."""

    def begin(self) -> Portions:
        """Tokens are there: what there is to fetch."""

    def fetch(self, portion: int) -> Iterator[None]:
        """Get a portion; whoever iterates may do something else between two items. Afterwards
        `rows` are its rows, and if it was the first of all, `block` those of the first block."""

    @property
    def rows(self) -> Activations: ...

    @property
    def block(self) -> Activations: ...

    def end(self) -> None:
        """No more is wanted."""

    @property
    def forwards(self) -> dict[str, int]:
        """Passes, tokens and hook counts, where the model runs in this process."""


class OwnFeed:
    """The forward runs here, and its tensors are handed over by reference."""

    stage = "forward"

    def __init__(self, job: Forward, device: str) -> None:
        self._forwarder = Forwarder(job, device)
        self._lot = Lot()
        self._portion = 0
        self._portions: Portions | None = None

    def load(self) -> Activations:
        self._forwarder.load()
        return self._forwarder.rehearse()

    def begin(self) -> Portions:
        self._portions = self._forwarder.begin()
        return self._portions

    def fetch(self, portion: int) -> Iterator[None]:
        assert self._portions is not None, "begin() comes first"
        lot = self._portions.lot_of(portion)
        if lot != self._lot.number:
            yield from self._forwarder.run(lot, self._lot)
        self._portion = portion

    @property
    def rows(self) -> Activations:
        return self._lot.rows(self._portion)

    @property
    def block(self) -> Activations:
        return self._lot.activations

    def end(self) -> None:
        """Nothing is held elsewhere."""

    @property
    def forwards(self) -> dict[str, int]:
        return self._forwarder.counts
