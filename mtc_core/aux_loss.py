"""The auxiliary loss that brings dead latents back.

The k_aux largest dead latents of each row reconstruct what the live ones left over:

    e = (y − ŷ_m).detach();   ê = Σ_{top dead} relu(pre) W_dec;   aux = scale · mean_n ‖e − ê‖² / V
    scale = min(n_dead / (d_out / 2), 1)

b_dec takes no part, and the gradient reaches encoder and decoder of dead latents only. Dense over
the compacted dead columns: a gathered form costs 6 to 18 times the main sparse path.

B rows · D dead latents · P those, and zeros up to a multiple of PAD · I, O source and target widths
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mtc_core.objective import Batch, Weights

# MKL sums in another order with other numbers of threads where few columns are no multiple of this.
PAD = 16


class Products(Protocol):
    """How the device multiplies best."""

    def linear(self, x_BI: Tensor, W_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """x Wᵀ + bias"""
        ...

    def inner(self, a_BI: Tensor, b_BO: Tensor) -> Tensor:
        """aᵀ b"""
        ...

    def keep_largest(self, rows_BD: Tensor, k: int) -> Tensor:
        """As in selection.py, or a faster form."""
        ...


@dataclass(frozen=True, slots=True)
class AuxGradients:
    """What the auxiliary loss adds to the gradients: rows of dead latents."""

    dead_D: Tensor
    W_enc_DI: Tensor
    b_enc_D: Tensor
    W_dec_DO: Tensor

    def add_to(self, gradients: Weights) -> None:
        gradients.W_dec.index_add_(0, self.dead_D, self.W_dec_DO)
        gradients.W_enc.index_add_(0, self.dead_D, self.W_enc_DI)
        gradients.b_enc.index_add_(0, self.dead_D, self.b_enc_D)


def aux_gradients(
    weights: Weights,
    batch: Batch,
    residual_BO: Tensor,
    dead_D: Tensor,
    *,
    k_aux: int | None,
    aux_weight: float,
    variance: float,
    products: Products,
) -> tuple[Tensor, AuxGradients]:
    """aux (float64 scalar), and the gradients of aux_weight · aux."""
    D, half = dead_D.numel(), max(1, residual_BO.shape[1] // 2)
    k = min(k_aux or half, D)
    scale_B = batch.weight_B * (min(D / half, 1.0) / (batch.count * variance))
    zeros = -D % PAD  # rows of weights whose activations are 0
    W_enc_PI = F.pad(weights.W_enc[dead_D], (0, 0, 0, zeros))
    W_dec_PO = F.pad(weights.W_dec[dead_D], (0, 0, 0, zeros))
    b_enc_P = F.pad(weights.b_enc[dead_D], (0, zeros))
    acts_BP = products.linear(batch.x_BI, W_enc_PI, b_enc_P).relu_()
    if k < D:
        acts_BP = products.keep_largest(acts_BP, k)
    error_BO = products.linear(acts_BP, W_dec_PO.T, None).sub_(residual_BO)
    squares_B = torch.linalg.vector_norm(error_BO, dim=1).double().square()
    grad_BO = error_BO.mul_((2 * aux_weight * scale_B)[:, None])
    grad_BP = products.linear(grad_BO, W_dec_PO, None).mul_(acts_BP > 0)
    return (squares_B * scale_B).sum(), AuxGradients(
        dead_D,
        products.inner(grad_BP, batch.x_BI)[:D],
        grad_BP.sum(0)[:D],
        products.inner(acts_BP, grad_BO)[:D],
    )
