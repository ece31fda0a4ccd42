"""The encoder's product, and how to make a rounded one exact.

B rows · F latents · I source width · n entries
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mtc_core.objective import Weights
from mtc_core.selection import Kept, Rescore
from mtc_core.sparse import row_dot
from mtc_core.workspace import Workspace

Addmm = Callable[..., Tensor]  # as torch.addmm with `out`


class Sieve(Protocol):
    """Knows pre-activations that are rounded well enough to find the large ones."""

    def above(self, bound: float, left_out_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Ascending flat indices of the exact ones above a bound, and those; none of the rows that
        are left out."""
        ...

    def exact(self) -> PreActivations: ...


@dataclass(frozen=True, slots=True)
class PreActivations:
    """x W_encᵀ + b_enc of a step, to be overwritten by what comes next."""

    pre_BF: Tensor
    rescore: Rescore | None = None  # where they are rounded
    bias_F: Tensor | None = None  # where it is still to be added
    sieve: Sieve | None = None  # where that is to be asked


def pre_activations(
    weights: Weights,
    x_BI: Tensor,
    half: bool,
    workspace: Workspace,
    addmm: Addmm = torch.addmm,
) -> PreActivations:
    """In the weights' dtype, or computed and rounded in bfloat16. addmm: a faster one
    for the former."""
    dtype = torch.bfloat16 if half else weights.W_enc.dtype
    pre_BF = workspace.matrix(len(x_BI), weights.b_enc.numel(), x_BI.device, dtype)
    b_enc, W_enc = weights.b_enc.to(dtype), weights.W_enc.to(dtype)
    if not half:
        addmm(b_enc, x_BI, W_enc.T, out=pre_BF)
        return PreActivations(pre_BF)
    torch.addmm(b_enc, x_BI.to(dtype), W_enc.T, out=pre_BF)

    def rescore(flat_n: Tensor) -> Tensor:
        found = Kept.from_flat(flat_n, flat_n, weights.b_enc.numel())
        exact_n = row_dot(x_BI, weights.W_enc, found.rows_n, found.latents_n)
        return exact_n + weights.b_enc[found.latents_n]

    return PreActivations(pre_BF, rescore)
