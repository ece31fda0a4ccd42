"""Which documents are held out of training: a pure function of the text in its order.

A document is a candidate if the hash of its text falls into a fifth of all hashes. Until the
holdout is full, a candidate is held out if all that is held out then stays within a tenth of the
tokens read so far. What is decided for a text holds for every copy of it: copies of a held-out
document are dropped, copies of a trained one are trained. Needs no length in advance, so it serves
streams and files alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import numpy as np

from mtc_core.tokens.data_config import MAX_SHARE

Half = Literal["calibration", "test"]
# Contexts are dealt to them, not documents: halves of few documents differ in kind of text, and a
# threshold set on one gave an L0 8 % off on the other (SmolLM2 on python-docs, 14 documents each).
HALVES: tuple[Half, Half] = ("calibration", "test")
CANDIDATE_HASHES = 2**64 // 5


def text_key(text: str) -> str:
    """128 bits of hash, in hex; white space does not tell texts apart."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:32]


def is_candidate(key: str) -> bool:
    """Whether a text may be held out at all."""
    return int(key[:16], 16) < CANDIDATE_HASHES


class Holdout:
    """Decides document by document, and keeps the ids of what it holds out.

    The rest of a document that overfills it is in neither the holdout nor the training text.
    """

    def __init__(self, wanted_ids: int, held: Iterable[str] | None = None) -> None:
        """`held`: the keys of a holdout that is complete already."""
        self.wanted_ids = wanted_ids
        self.complete = held is not None
        self.held = set(held or ())
        self.read_tokens = 0
        self.held_tokens = 0
        self._trained_candidates: set[str] = set()
        self._pieces: list[np.ndarray] = [np.zeros(0, np.int32)]

    def takes(self, text: str, ids: np.ndarray) -> bool:
        """Whether this document is not for training: held out, or a copy of one that is."""
        key = text_key(text)
        if key in self.held:
            return True
        if self.complete:
            return False
        self.read_tokens += len(ids)
        if not is_candidate(key) or key in self._trained_candidates:
            return False
        if MAX_SHARE * (self.held_tokens + len(ids)) > self.read_tokens:
            self._trained_candidates.add(key)
            return False
        self._hold(key, ids)
        return True

    def _hold(self, key: str, ids: np.ndarray) -> None:
        self._pieces.append(ids[: max(0, self.wanted_ids - self.held_tokens)])
        self.held.add(key)
        self.held_tokens += len(ids)
        if self.held_tokens >= self.wanted_ids:
            self.close()

    def close(self) -> None:
        """Hold out nothing more: it is full, or the text has ended."""
        self.complete = True
        self._trained_candidates.clear()

    @property
    def ids(self) -> np.ndarray:
        """All held-out ids in reading order, int32."""
        return np.concatenate(self._pieces)
