"""The objective and its hand-written gradient.

    L = Σ_{i=0..m} w_i · mean_n ‖y_n − ŷ_{i,n}‖² / V
    ŷ_i = b_dec (+ x W_skipᵀ) + Σ_{latents of groups 1..i} a W_dec

Every prefix loss reaches the weights that it covers. With g_i = 2 w_i / (n V) (ŷ_i − y) the
gradient of group j's contribution is G_j = Σ_{i≥j} g_i, a reverse cumulative sum over prefixes, so
nothing is decoded twice. b_dec and W_skip are in every prefix, so theirs is G_1 + g_0, summed over
rows or against x. tests/core/test_objective.py holds it against autograd of a naive loop.

B rows · M groups (and prefixes) · F latents · I, O source and target widths · n nonzeros
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtc_core.selection import Kept
from mtc_core.sparse import Bags, LatentMajor


@dataclass(slots=True)
class Weights:
    """One transcoder's parameters, or their gradients."""

    W_enc: Tensor  # [F, I]
    b_enc: Tensor  # [F]
    W_dec: Tensor  # [F, O]
    b_dec: Tensor  # [O]
    W_skip: Tensor | None = None  # [O, I], with `skip`

    def tensors(self) -> dict[str, Tensor]:
        skip = {} if self.W_skip is None else {"W_skip": self.W_skip}
        return {
            "W_enc": self.W_enc,
            "b_enc": self.b_enc,
            "W_dec": self.W_dec,
            "b_dec": self.b_dec,
            **skip,
        }

    def base_error(self, x_BI: Tensor, y_BO: Tensor) -> Tensor:
        """ŷ_0 − y: what is left to the latents, negated. [B, O]"""
        error_BO = self.b_dec - y_BO
        return error_BO if self.W_skip is None else error_BO.addmm_(x_BI, self.W_skip.T)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows, scaled, with what the loss makes of each."""

    x_BI: Tensor
    y_BO: Tensor
    weight_B: Tensor  # loss weight of each row; 0 leaves a row out
    ordinary_B: Tensor  # 1 for rows that are not extreme, else 0
    count: Tensor  # rows with a weight: what means divide by, at least 1


@dataclass(frozen=True, slots=True)
class Objective:
    """What the loss is made of, beside the weights."""

    prefix_weights: tuple[float, ...]  # w_0 (bias only), w_1, …, w_m
    variance: float  # V, of the scaled target
    group_of_latent_F: Tensor


@dataclass(slots=True)
class Step:
    """Losses of one step and the gradients of their weighted sum."""

    loss_P: Tensor  # weighted mean squared error over V of prefixes 1..m, float64
    bias_loss: Tensor  # the same for the bias alone
    fvu_P: Tensor  # unweighted, over ordinary rows only: what is reported
    residual_BO: Tensor  # y − ŷ_m
    gradients: Weights

    def loss(self, prefix_weights: tuple[float, ...]) -> Tensor:
        weights = self.loss_P.new_tensor(prefix_weights)
        return weights[0] * self.bias_loss + (weights[1:] * self.loss_P).sum()


def step_gradients(weights: Weights, batch: Batch, kept: Kept, objective: Objective) -> Step:
    """Losses and gradients for the selected activations of a batch."""
    d_sae = weights.W_dec.shape[0]
    n_groups = len(objective.prefix_weights) - 1
    bags = Bags(kept, objective.group_of_latent_F, batch.y_BO.shape[0], n_groups)
    by_latent = LatentMajor(kept, d_sae)

    base_error_BO = weights.base_error(batch.x_BI, batch.y_BO)
    errors_BMO = prefix_errors(bags.decode(weights.W_dec), base_error_BO)
    scale = 1 / (batch.count * objective.variance)
    squares_BM = torch.linalg.vector_norm(errors_BMO, dim=2).double().square()
    loss_P = batch.weight_B.double() @ squares_BM * scale.double()
    ordinary_B = batch.ordinary_B.double()
    fvu_P = ordinary_B @ squares_BM / (ordinary_B.sum().clamp(min=1) * objective.variance)
    residual_BO = -errors_BMO[:, -1]  # a copy, taken before the errors become gradients

    w_0, bias_loss = objective.prefix_weights[0], batch.count.new_zeros((), dtype=torch.float64)
    G_BMO = _group_gradients(errors_BMO, batch.weight_B * scale, objective.prefix_weights)
    base_BO = G_BMO[:, 0]  # the gradient of ŷ_0
    if w_0:
        bias_loss, bias_gradient_BO = _bias_term(base_error_BO, batch, w_0, scale)
        base_BO = base_BO + bias_gradient_BO
    d_act_n = bags.dot(G_BMO, weights.W_dec)
    gradients = Weights(
        W_enc=by_latent.gradient(d_act_n, kept.rows_n, batch.x_BI),
        b_enc=by_latent.sums(d_act_n),
        W_dec=by_latent.gradient(kept.acts_n, bags.bags_n, G_BMO.flatten(0, 1)),
        b_dec=base_BO.sum(0),
        W_skip=None if weights.W_skip is None else base_BO.T @ batch.x_BI,
    )
    return Step(loss_P, bias_loss, fvu_P, residual_BO, gradients)


def prefix_errors(groups_BMO: Tensor, start_BO: Tensor) -> Tensor:
    """ŷ_i − y of every prefix, in place of each group's own contribution.

    `start_BO` is b_dec − y."""
    groups_BMO[:, 0] += start_BO
    for i in range(1, groups_BMO.shape[1]):
        groups_BMO[:, i] += groups_BMO[:, i - 1]
    return groups_BMO


def _group_gradients(errors_BMO: Tensor, row_scale_B: Tensor, weights: tuple[float, ...]) -> Tensor:
    """G_j = Σ_{i≥j} 2 w_i scale_n (ŷ_i − y), in place of the errors."""
    w_M = errors_BMO.new_tensor(weights[1:])
    errors_BMO *= (2 * row_scale_B[:, None] * w_M).unsqueeze(2)
    for j in range(errors_BMO.shape[1] - 2, -1, -1):
        errors_BMO[:, j] += errors_BMO[:, j + 1]
    return errors_BMO


def _bias_term(error_BO: Tensor, batch: Batch, w_0: float, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of ŷ_0, and its gradient in every row."""
    weighted_BO = error_BO * (batch.weight_B * scale)[:, None]
    return (error_BO * weighted_BO).double().sum(), 2 * w_0 * weighted_BO
