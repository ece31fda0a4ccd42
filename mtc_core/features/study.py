"""All of it for one transcoder: rows of its source in, what its latents respond to out.

    study = FeatureStudy(tc, n=8, window=16)
    study.add(x_BI, contexts_B, positions_B)      # whole contexts, in reading order, any number
    study.strongest.values_Fn, study.firing.fired_F, study.parents()

B rows · F latents · I source width
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtc_core.features.firing import Firing, TogetherCounts, pairs
from mtc_core.features.parents import likely_parents
from mtc_core.features.strongest import StrongestContexts
from mtc_core.selection import Kept
from mtc_core.transcoder import MatryoshkaTranscoder

CHUNK = 1 << 23  # activations, dense, held at once; but always a whole context
WORKING_BYTES = 8 * 4 * CHUNK  # at once, in a call: pre-activations, activations, pairs


class FeatureStudy:
    """Fed with the source's rows; exact, and the same however they are cut into calls, but for
    the last bits of the encoder's product: some processors round a row otherwise among others."""

    def __init__(self, tc: MatryoshkaTranscoder, n: int, window: int) -> None:
        device = tc.W_enc.device
        self.transcoder = tc
        self.strongest = StrongestContexts(tc.d_sae, n, window, device)
        self.firing = Firing(tc.d_sae, device)
        self.together = TogetherCounts(tc.spec.group_sizes, device)

    @torch.no_grad()
    def add(self, x_BI: Tensor, contexts_B: Tensor, positions_B: Tensor) -> None:
        """Take the rows of whole contexts, with the number of the context and the position in it of
        each."""
        _, sizes_C = contexts_B.unique_consecutive(return_counts=True)
        begin = 0
        for size in _chunks(sizes_C.tolist(), CHUNK // self.transcoder.d_sae):
            part = slice(begin, begin + size)
            self._add(x_BI[part], contexts_B[part], positions_B[part])
            begin += size

    def _add(self, x_BI: Tensor, contexts_B: Tensor, positions_B: Tensor) -> None:
        acts_BF = self.transcoder.encode(x_BI)
        kept = Kept.from_dense(acts_BF)
        self.firing.add(kept, len(x_BI))
        self.together.add(kept, len(x_BI))
        self.strongest.add(acts_BF, contexts_B, positions_B, kept)

    def parents(self) -> tuple[Tensor, Tensor]:
        """For each latent, its likely parent (−1: none) and the rows on which both were on."""
        return likely_parents(self.together, self.firing.fired_F, self.firing.rows)


def study_bytes(group_sizes: Sequence[int], n: int, window: int) -> int:
    """Memory of a study beside its transcoder: tables, and counts of pairs."""
    tables = sum(group_sizes) * (n * (4 * (2 * window + 1) + 20) + 20)
    return tables + 4 * pairs(group_sizes)


def _chunks(sizes: Sequence[int], most: int) -> list[int]:
    """Neighbouring contexts joined, as long as their rows are no more than `most`."""
    joined: list[int] = []
    for size in sizes:
        if joined and joined[-1] + size <= most:
            joined[-1] += size
        else:
            joined.append(size)
    return joined
