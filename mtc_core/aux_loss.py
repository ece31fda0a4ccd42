"""The auxiliary loss that brings dead latents back.

The k_aux largest dead latents of each row reconstruct what the live ones left over:

    e = (y − ŷ_m).detach();   ê = Σ_{top dead} relu(pre) W_dec;   aux = scale · mean_n ‖e − ê‖² / V
    scale = min(n_dead / (d_out / 2), 1)

b_dec takes no part, and the gradient reaches encoder and decoder of dead latents only. Dense over
the compacted dead columns: a gathered form costs 6 to 18 times the main sparse path.

B rows · D dead latents · I, O source and target widths
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mtc_core.objective import Batch, Weights


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
    keep_largest: Callable[[Tensor, int], Tensor],
) -> tuple[Tensor, AuxGradients]:
    """aux (float64 scalar), and the gradients of aux_weight · aux.

    keep_largest: as in selection.py, or a faster form."""
    half = max(1, residual_BO.shape[1] // 2)
    k = min(k_aux or half, dead_D.numel())
    scale = min(dead_D.numel() / half, 1.0) / (batch.count * variance)
    W_enc_DI, W_dec_DO = weights.W_enc[dead_D], weights.W_dec[dead_D]
    acts_BD = torch.addmm(weights.b_enc[dead_D], batch.x_BI, W_enc_DI.T).relu_()
    if k < dead_D.numel():
        acts_BD = keep_largest(acts_BD, k)
    error_BO = acts_BD @ W_dec_DO - residual_BO
    weighted_BO = error_BO * (batch.weight_B * scale)[:, None]
    aux = (error_BO * weighted_BO).double().sum()
    grad_BO = weighted_BO.mul_(2 * aux_weight)
    grad_BD = (grad_BO @ W_dec_DO.T).mul_(acts_BD > 0)
    return aux, AuxGradients(dead_D, grad_BD.T @ batch.x_BI, grad_BD.sum(0), acts_BD.T @ grad_BO)
