"""Which rows a block of steps is trained on: a pure function of (stored tokens, seed, block).

Pass e over the text visits its windows in order, the contexts of window w in an order drawn from
(seed, e, w); a corpus that has ended repeats. Block b is the shortest run of contexts, after those
of block b - 1, with at least `block_rows` rows; its surplus rows are not trained, and the others
are trained in an order drawn from (seed, b).

C contexts of a block, T positions of a context, R rows of a block. A *stretch* is one window in
one pass; stretches are numbered through: s = pass * windows + window.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtc_core.errors import DataError
from mtc_core.seeds import seed_of
from mtc_core.tokens.token_store import TokenStore

CACHED_STRETCHES = 4


@dataclass(frozen=True)
class Block:
    """The contexts of a block and the rows to train on.

    ids_CT: int64. flat_rows: int64 indices into the flattened C * T positions, in the order of
    training, so that batch j is `flat_rows[j * batch : (j + 1) * batch]`.
    pass_index: which reading of the text its first context belongs to.
    """

    index: int
    ids_CT: np.ndarray
    flat_rows: np.ndarray
    pass_index: int

    @property
    def n_contexts(self) -> int:
        return len(self.ids_CT)


@dataclass(frozen=True)
class _Stretch:
    """order_C: contexts of the window as visited. ends_C: rows up to and including each."""

    order_C: np.ndarray
    ends_C: np.ndarray


class Schedule:
    """Blocks of exactly `block_rows` rows; any of them, in any order, at any time."""

    def __init__(self, store: TokenStore, seed: int, block_rows: int) -> None:
        assert block_rows > 0
        self.store = store
        self.seed = seed
        self.block_rows = block_rows
        self._starts: list[tuple[int, int]] = [(0, 0)]  # of each block: stretch, context in it
        self._counts: dict[int, np.ndarray] = {}  # rows of each context, by window
        self._stretches: OrderedDict[int, _Stretch] = OrderedDict()

    def check_enough(self, batch_tokens: int) -> None:
        """Raise DataError if the whole corpus has fewer training rows than one batch."""
        if self.store.finished and self.store.train_rows < batch_tokens:
            raise DataError(
                f"data.path: {self.store.settings['data']['path']} leaves {self.store.train_rows} "
                f"rows for training after the holdout, fewer than one batch of {batch_tokens}; "
                f"give more text or lower train.batch_tokens"
            )

    @property
    def blocks_available(self) -> float:
        """Blocks that can be made of what is on disk now; infinite once the text has ended."""
        self.store.refresh()
        if self.store.finished:
            return math.inf
        self._find(None)
        return len(self._starts) - 1

    def block(self, b: int) -> Block:
        """Block b, which must be available."""
        if b + 1 >= len(self._starts):
            self.store.refresh()
            self._find(b + 1)
        assert 0 <= b < len(self._starts) - 1, f"block {b} is not available"
        ids_CT, rows_CT = [], []
        for w, chosen in self._contexts_of(b):
            contexts = self.store.windows[w].contexts()
            ids_CT.append(contexts.ids_CT[chosen])
            rows_CT.append(contexts.rows_CT[chosen])
        trained = np.flatnonzero(np.concatenate(rows_CT))[: self.block_rows]
        return Block(
            index=b,
            ids_CT=np.concatenate(ids_CT).astype(np.int64),
            flat_rows=trained[permutation(self.block_rows, self.seed, "rows", b)],
            pass_index=self._place(self._starts[b][0])[0],
        )

    def _contexts_of(self, b: int) -> Iterator[tuple[int, np.ndarray]]:
        """The contexts of a block in order: a window, and which of its contexts."""
        (first, start), (last, stop) = self._starts[b], self._starts[b + 1]
        for s in range(first, last):
            yield self._place(s)[1], self._stretch(s).order_C[start:]
            start = 0
        if stop:
            yield self._place(last)[1], self._stretch(last).order_C[start:stop]

    def _find(self, n_blocks: int | None) -> None:
        """Note where the first n_blocks blocks end (None: all, of a text that has not ended)."""
        self.check_enough(1)  # a corpus without rows would be searched for ever
        while n_blocks is None or len(self._starts) <= n_blocks:
            end = self._end_of_block(*self._starts[-1])
            if end is None:
                return
            self._starts.append(end)

    def _end_of_block(self, s: int, start: int) -> tuple[int, int] | None:
        """Where the block that starts there ends, which is where the next one starts."""
        needed = self.block_rows
        while self._exists(s):
            ends_C = self._stretch(s).ends_C
            before = int(ends_C[start - 1]) if start else 0
            stop = int(np.searchsorted(ends_C, before + needed)) + 1
            if stop < len(ends_C):
                return s, stop
            if stop == len(ends_C):
                return s + 1, 0
            needed -= int(ends_C[-1]) - before
            s, start = s + 1, 0
        return None

    def _exists(self, s: int) -> bool:
        return self.store.finished or s < len(self.store.windows)

    def _place(self, s: int) -> tuple[int, int]:
        """Pass and window of a stretch. A text that has not ended is in its first pass."""
        return divmod(s, len(self.store.windows)) if self.store.finished else (0, s)

    def _stretch(self, s: int) -> _Stretch:
        if s not in self._stretches:
            e, w = self._place(s)
            order_C = permutation(self.store.windows[w].n_contexts, self.seed, "contexts", e, w)
            self._stretches[s] = _Stretch(order_C, np.cumsum(self._row_counts(w)[order_C]))
            if len(self._stretches) > CACHED_STRETCHES:
                self._stretches.popitem(last=False)
        self._stretches.move_to_end(s)
        return self._stretches[s]

    def _row_counts(self, w: int) -> np.ndarray:
        if w not in self._counts:
            rows_CT = self.store.windows[w].contexts().rows_CT
            self._counts[w] = np.count_nonzero(rows_CT, axis=1)
        return self._counts[w]


def rows_to_store(n_blocks: int, block_rows: int, context_tokens: int) -> int:
    """Training rows that a store needs at most so that n_blocks blocks can be made of them."""
    return n_blocks * (block_rows + context_tokens - 1)


def permutation(n: int, *purpose: Any) -> np.ndarray:
    """A permutation of range(n) drawn for a purpose. Sorts raw bits, whose stream numpy keeps
    between versions, unlike its shuffles."""
    raw = np.random.PCG64(seed_of(*purpose)).random_raw(n)
    return np.argsort(raw, kind="stable")
