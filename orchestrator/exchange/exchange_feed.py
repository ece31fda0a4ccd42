"""The feed of a cell whose rows come from producers.

It keeps asking each producer for the next few of that producer's portions: its credit window. It
takes them in order, and holds one at a time.

B rows of a portion · N made-up rows · D width of a site
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

import torch

from mtc_core.producer import Activations
from mtc_core.tokens.token_store import TokenStore
from orchestrator.cells.forwarder import Lot
from orchestrator.cells.job import Fed
from orchestrator.cells.portions import Portions
from orchestrator.exchange.line import Line, LineLost

REHEARSAL_ROWS = 256
ABSENT_S = 0.1  # how long a cell rests at a time while it has no producer


class ExchangeFeed:
    """See Feed. Lines are given to it by `connect`, and anew for a producer that was replaced."""

    stage = "feed"

    def __init__(self, job: Fed, device: str) -> None:
        self.job, self.device = job, device
        self._lines: list[Line | None] = [None] * job.producers
        self._asked: list[set[int]] = [set() for _ in self._lines]
        self._left: set[int] = set()  # producers that have nothing more for us
        self._needed = 0  # the first portion that is still to be taken
        self._rows: Activations = {}
        self._first = Lot()  # the first block, taken as a whole for its statistics
        self._portions: Portions | None = None

    def connect(self, producer: int, line: Line) -> None:
        """From now on that producer is at the end of this line."""
        self._lines[producer], self._asked[producer] = line, set()
        self._left.discard(producer)

    def load(self) -> Activations:
        """Made-up rows: the model is elsewhere."""
        ramp_N = torch.arange(REHEARSAL_ROWS, device=self.device)[:, None]
        return {
            name: torch.sin((ramp_N + 1) * torch.arange(1, width + 1, device=self.device))
            for name, width in self.job.widths.items()
        }

    def begin(self) -> Portions:
        text = self.job.text
        store = TokenStore(text.tokens)
        self._portions = Portions.of(store, text.train, text.forward_contexts)
        return self._portions

    def fetch(self, portion: int) -> Iterator[None]:
        self._rows = {}  # before more is asked for: what is held is part of the window
        if portion == self._needed == 0:
            yield from self._fetch_first_block()
        if portion in self._first.portions:
            self._rows = self._first.rows(portion)
            return
        self._first = Lot()
        self._needed = portion
        yield from self._take(portion)

    @property
    def rows(self) -> Activations:
        return self._rows

    @property
    def block(self) -> Activations:
        assert self._first.portions, "only of a feed that began at its beginning"
        return self._first.activations

    def end(self) -> None:
        self._rows = {}
        for line in self._lines:
            if line is not None:
                line.leave()

    @property
    def forwards(self) -> dict[str, int]:
        return {}

    def _fetch_first_block(self) -> Iterator[None]:
        """Into memory of our own: the window may be smaller than a block."""
        assert self._portions is not None, "begin() comes first"
        portions = self._portions.of_lot(0)
        batch_tokens = self.job.text.train.batch_tokens
        block: Activations = {}
        for portion in portions:
            yield from self._take(portion)
            for name, rows_BD in self._rows.items():
                if name not in block:
                    block[name] = rows_BD.new_empty(
                        self.job.text.train.block_rows, rows_BD.shape[1]
                    )
                block[name][portion * batch_tokens : (portion + 1) * batch_tokens] = rows_BD
            self._rows = {}
            self._needed = portion + 1
        self._first = Lot(0, portions, block, batch_tokens)

    def _take(self, portion: int) -> Iterator[None]:
        assert self._portions is not None, "begin() comes first"
        producer = self._portions.lot_of(portion) % len(self._lines)
        while True:
            self._ask()
            line = self._lines[producer]
            if line is None:
                time.sleep(ABSENT_S)  # the new one needs this core to load
            try:
                rows = line.take(portion) if line else None
            except LineLost:
                rows, self._lines[producer] = None, None
            if rows is not None:
                self._rows = rows
                return
            yield

    def _ask(self) -> None:
        """Fill the window of every producer, and leave those that have nothing more for us: they
        wait for all whom they expect."""
        assert self._portions is not None
        for index, line in enumerate(self._lines):
            if line is None:
                continue
            theirs = self._portions.of_producer(index, len(self._lines), self._needed)
            window = list(islice(theirs, self.job.prefetch_steps))
            if not window and index not in self._left:
                self._left.add(index)
                line.leave()
            for portion in window:
                if portion not in self._asked[index]:
                    self._asked[index].add(portion)
                    line.ask(portion, self._needed)
            self._asked[index] = {p for p in self._asked[index] if p >= self._needed}
