"""What a step keeps of its pre-activations, and the threshold that follows from it.

B rows · F latents · E extreme rows
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from mtc_core.config import Extreme, TranscoderSpec
from mtc_core.objective import Batch
from mtc_core.pre_activations import PreActivations, Sieve
from mtc_core.selection import BatchTopK, Kept, Search, keep_largest, topk_rows

THRESHOLD_DECAY = 0.99
BOUND_LATENTS = 4  # an extreme row under `bound` uses at most this many times k latents


class Selector(Protocol):
    """State of a transcoder in training: `threshold` is the moving average of the batches' cuts,
    float64 and negative before the first."""

    threshold: Tensor

    @property
    def cut(self) -> float:
        """Of the last step; 0 before the first, and where a device would have to be asked."""
        ...

    def __call__(self, pre: PreActivations, batch: Batch, extreme_B: Tensor) -> Kept: ...

    def tensors(self) -> dict[str, Tensor]: ...

    def load(self, tensors: Mapping[str, Tensor]) -> None: ...


class HostSelector:
    """Asks the device how much it has found: the plain form, and the faster one on a CPU."""

    def __init__(self, spec: TranscoderSpec, extreme: Extreme, search: Search) -> None:
        self.spec, self.extreme, self.search = spec, extreme, search
        self.batch_topk = BatchTopK()
        self.threshold = torch.tensor(-1.0, dtype=torch.float64)

    def __call__(self, pre: PreActivations, batch: Batch, extreme_B: Tensor) -> Kept:
        """The activations of a step. Extreme rows keep their place but (mask) stay empty."""
        if self.spec.selection == "topk":
            curb_extreme(pre.pre_BF, extreme_B, self.extreme, self.spec)
            return topk_rows(pre.pre_BF, self.spec.k, pre.rescore)
        budget = self.spec.k * int(batch.count)
        kept = self._sieved(pre.sieve, extreme_B, budget) if pre.sieve else None
        if kept is None:
            pre = pre.sieve.exact() if pre.sieve else pre
            curb_extreme(pre.pre_BF, extreme_B, self.extreme, self.spec)
            kept = self.batch_topk(pre.pre_BF, budget, pre.rescore, self.search)
        if kept.acts_n.numel() == budget:  # with fewer positives the smallest is no cut
            smallest = kept.acts_n.min().double().cpu()
            self.threshold = moved_threshold(self.threshold, smallest)
        return kept

    def _sieved(self, sieve: Sieve, extreme_B: Tensor, budget: int) -> Kept | None:
        assert self.spec.takes_few(self.extreme)
        left_out_B = extreme_B if self.extreme == "mask" else None
        return self.batch_topk.from_above(
            lambda bound: sieve.above(bound, left_out_B), budget, self.spec.d_sae, self.search
        )

    @property
    def cut(self) -> float:
        return self.batch_topk.cut

    def tensors(self) -> dict[str, Tensor]:
        places = [self.batch_topk.cut, self.batch_topk.margin]
        return {
            "threshold": self.threshold,
            "filter": torch.tensor(places, dtype=torch.float64),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.threshold = tensors["threshold"].cpu().clone()
        self.batch_topk.cut, self.batch_topk.margin = tensors["filter"].tolist()


def curb_extreme(pre_BF: Tensor, extreme_B: Tensor, extreme: Extreme, spec: TranscoderSpec) -> None:
    """Of extreme rows leave nothing (mask) or 4 k activations (bound), in place."""
    if extreme == "keep":
        return
    rows_E = extreme_B.nonzero().squeeze(1)
    if not rows_E.numel():
        return
    cap = bound_latents(extreme, spec)
    pre_BF[rows_E] = keep_largest(pre_BF[rows_E], cap) if cap else 0


def bound_latents(extreme: Extreme, spec: TranscoderSpec) -> int:
    """What an extreme row may use at most."""
    if extreme == "mask":
        return 0
    return min(BOUND_LATENTS * spec.k, spec.d_sae) if extreme == "bound" else spec.d_sae


def moved_threshold(threshold: Tensor, cut: Tensor) -> Tensor:
    return torch.where(threshold < 0, cut, torch.lerp(cut, threshold, THRESHOLD_DECAY))
