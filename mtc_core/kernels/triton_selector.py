"""A step's selection on a GPU, its budget and its threshold: selector.py has the plain form.

B rows
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtc_core.config import Extreme, TranscoderSpec
from mtc_core.kernels.triton_selection import Matrix, keep_of_rows, select_batch, select_rows
from mtc_core.objective import Batch
from mtc_core.pre_activations import PreActivations
from mtc_core.selection import BatchTopK, Kept
from mtc_core.selector import bound_latents, moved_threshold


class TritonSelector:
    """Nothing here waits for the device. `filter` is where to look first, as in BatchTopK: the
    smallest value kept last time, and the share of it above which entries become candidates."""

    def __init__(self, spec: TranscoderSpec, extreme: Extreme, device: torch.device) -> None:
        self.spec, self.extreme = spec, extreme
        self.threshold = torch.full((), -1.0, dtype=torch.float64, device=device)
        self.filter = torch.zeros(2, dtype=torch.float64, device=device)
        self.filter[1] = BatchTopK().margin

    cut = 0.0  # the device knows it

    def __call__(self, pre: PreActivations, batch: Batch, extreme_B: Tensor) -> Kept:
        """The activations of a step. Extreme rows keep their place but (mask) stay empty."""
        assert pre.rescore is None
        matrix = Matrix(pre.pre_BF, pre.bias_F)
        if self.extreme != "keep":
            cap = bound_latents(self.extreme, self.spec)
            keep_of_rows(matrix, extreme_B.int(), cap, -float("inf"))
        if self.spec.selection == "topk":
            return select_rows(matrix, self.spec.k)
        capacity = self.spec.k * len(extreme_B)
        budget = (self.spec.k * batch.count.int()).view(1)
        bound = (self.filter[0] * self.filter[1]).float().view(1)
        kept, cut, found = select_batch(matrix, budget, capacity, bound)
        self._remember(cut.value.double(), cut.few, found / budget)
        return kept

    def _remember(self, cut: Tensor, few: Tensor, ratio: Tensor) -> None:
        last, margin = self.filter.split(1)
        more = (margin + 0.01).clamp(max=0.995)
        less = (margin - 0.01).clamp(min=0.5)
        moved = torch.where(ratio > BatchTopK.MOST, more, margin)
        moved = torch.where(ratio < BatchTopK.FEWEST, less, moved)
        margin = torch.where(last > 0, moved, margin)  # before that there was no filter
        self.filter = torch.cat([torch.where(few, last, cut), margin])
        moved = moved_threshold(self.threshold, cut[0])
        self.threshold = torch.where(few[0], self.threshold, moved)

    def tensors(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold, "filter": self.filter}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.threshold = tensors["threshold"].to(self.threshold.device, copy=True)
        self.filter = tensors["filter"].to(self.filter.device, copy=True)
