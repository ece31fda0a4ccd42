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

Half = Literal["calibration", "test"]
HALVES: tuple[Half, Half] = ("calibration", "test")
CANDIDATE_HASHES = 2**64 // 5
MAX_SHARE = 10  # the holdout is at most one part in this many


def text_key(text: str) -> str:
    """128 bits of hash, in hex; white space does not tell texts apart."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:32]


def is_candidate(key: str) -> bool:
    """Whether a text may be held out at all."""
    return int(key[:16], 16) < CANDIDATE_HASHES


class Holdout:
    """Decides document by document, and keeps the ids of what it holds out.

    half_ids: ids that fill one half. The rest of a document that overfills its half is in neither
    the holdout nor the training text.
    """

    def __init__(self, half_ids: int, held: Iterable[str] | None = None) -> None:
        """`held`: the keys of a holdout that is complete already."""
        self.half_ids = half_ids
        self.complete = held is not None
        self.held = set(held or ())
        self.read_tokens = 0
        self.held_tokens = 0
        self._trained_candidates: set[str] = set()
        self._pieces: dict[Half, list[np.ndarray]] = {half: [] for half in HALVES}
        self._sizes: dict[Half, int] = dict.fromkeys(HALVES, 0)

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
        half = min(HALVES, key=lambda half: self._sizes[half])  # a tie goes to calibration
        used = ids[: self.half_ids - self._sizes[half]]
        self._pieces[half].append(used)
        self._sizes[half] += len(used)
        self.held.add(key)
        self.held_tokens += len(ids)
        if all(size == self.half_ids for size in self._sizes.values()):
            self.close()

    def close(self) -> None:
        """Hold out nothing more: both halves are full, or the text has ended."""
        self.complete = True
        self._trained_candidates.clear()

    def ids(self, half: Half) -> np.ndarray:
        """All ids of a half in reading order, int32."""
        return np.concatenate([np.zeros(0, np.int32), *self._pieces[half]])
