"""The auxiliary loss that brings dead latents back.

The k_aux largest dead latents of each row reconstruct what the live ones left over:

    e = (y − ŷ_m).detach();   ê = Σ_{top dead} relu(pre) W_dec;   aux = scale · mean_n ‖e − ê‖² / V
    scale = min(n_dead / (d_out / 2), 1)

b_dec takes no part, and the gradient reaches encoder and decoder of dead latents only. Dense over
the compacted dead columns: a gathered form costs 6 to 18 times the main sparse path.

B rows · D dead latents · I, O source and target widths
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtc_core.objective import Batch, Weights
from mtc_core.selection import topk_lowest_index


def add_aux_gradients(
    gradients: Weights,
    weights: Weights,
    batch: Batch,
    residual_BO: Tensor,
    dead_D: Tensor,
    *,
    k_aux: int | None,
    aux_weight: float,
    variance: float,
) -> Tensor:
    """Add the gradient of aux_weight · aux in place; return aux (float64 scalar)."""
    half = max(1, residual_BO.shape[1] // 2)
    k = min(k_aux or half, dead_D.numel())
    scale = min(dead_D.numel() / half, 1.0) / (batch.count * variance)
    W_enc_DI, W_dec_DO = weights.W_enc[dead_D], weights.W_dec[dead_D]
    acts_BD = torch.addmm(weights.b_enc[dead_D], batch.x_BI, W_enc_DI.T).relu_()
    if k < dead_D.numel():
        values_Bk, index_Bk = topk_lowest_index(acts_BD, k)
        acts_BD = torch.zeros_like(acts_BD).scatter_(1, index_Bk, values_Bk)

    error_BO = acts_BD @ W_dec_DO - residual_BO
    weighted_BO = error_BO * (batch.weight_B * scale)[:, None]
    aux = (error_BO * weighted_BO).double().sum()
    grad_BO = weighted_BO.mul_(2 * aux_weight)
    grad_BD = (grad_BO @ W_dec_DO.T).mul_(acts_BD > 0)
    gradients.W_dec.index_add_(0, dead_D, acts_BD.T @ grad_BO)
    gradients.W_enc.index_add_(0, dead_D, grad_BD.T @ batch.x_BI)
    gradients.b_enc.index_add_(0, dead_D, grad_BD.sum(0))
    return aux
