"""From a stream of ids to contexts and the rows in them.

C contexts, T positions of a context. A row is one position whose token stands for text.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Contexts:
    """ids_CT: int32 token ids. rows_CT: bool, true where a position is a row."""

    ids_CT: np.ndarray
    rows_CT: np.ndarray

    @property
    def n_rows(self) -> int:
        return int(np.count_nonzero(self.rows_CT))

    def halves(self) -> tuple[Contexts, Contexts]:
        """The contexts dealt to two sides in the order A B B A, which cancels drift in the text."""
        first_C = np.isin(np.arange(len(self.ids_CT)) % 4, (0, 3))
        return (
            Contexts(self.ids_CT[first_C], self.rows_CT[first_C]),
            Contexts(self.ids_CT[~first_C], self.rows_CT[~first_C]),
        )


def text_per_context(context_tokens: int, bos_id: int | None) -> int:
    """Ids of text in one context: all but the BOS."""
    return context_tokens - (bos_id is not None)


def pack(
    text_ids: np.ndarray, context_tokens: int, bos_id: int | None, special_ids: Collection[int]
) -> Contexts:
    """Cut ids into contexts, each opened by BOS if there is one, text going on where the context
    before ended. What does not fill the last context is dropped."""
    width = text_per_context(context_tokens, bos_id)
    n_contexts = len(text_ids) // width
    text_CW = np.asarray(text_ids[: n_contexts * width], np.int32).reshape(n_contexts, width)
    if bos_id is None:
        ids_CT = text_CW
    else:
        bos_C1 = np.full((n_contexts, 1), bos_id, np.int32)
        ids_CT = np.concatenate([bos_C1, text_CW], axis=1)
    return Contexts(ids_CT, row_mask(ids_CT, special_ids))


def row_mask(ids_CT: np.ndarray, special_ids: Collection[int]) -> np.ndarray:
    """bool [C, T]: special tokens are no rows, by id wherever they stand, and neither is the first
    position: without a BOS its activations are a sink's like a BOS's own."""
    rows_CT = ~np.isin(ids_CT, np.array(sorted(special_ids), np.int32))
    rows_CT[:, 0] = False
    return rows_CT
