"""The objective and its hand-written gradient; mtc_core.kernels computes them.

    L = Σ_{i=0..m} w_i · mean_n ‖y_n − ŷ_{i,n}‖² / V
    ŷ_i = b_dec (+ x W_skipᵀ) + Σ_{latents of groups 1..i} a W_dec

Every prefix loss reaches the weights that it covers. With g_i = 2 w_i / (n V) (ŷ_i − y) the
gradient of group j's contribution is G_j = Σ_{i≥j} g_i, a reverse cumulative sum over prefixes, so
nothing is decoded twice. b_dec and W_skip are in every prefix, so theirs is G_1 + g_0, summed over
rows or against x. tests/core/test_objective.py holds it against autograd of a naive loop.

B rows · M groups (and prefixes) · F latents · I, O source and target widths
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


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

    def without_skip(self, x_BI: Tensor, y_BO: Tensor) -> Tensor:
        """y less what the skip connection makes of x. [B, O]"""
        if self.W_skip is None:
            return y_BO
        return torch.addmm(y_BO, x_BI, self.W_skip.T, alpha=-1)

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


@dataclass(frozen=True)
class Objective:
    """What the loss is made of, beside the weights."""

    prefix_weights: tuple[float, ...]  # w_0 (bias only), w_1, …, w_m
    variance: float  # V, of the scaled target
    group_of_latent_F: Tensor

    @cached_property
    def weights_P(self) -> Tensor:
        """prefix_weights on the device: what a step copies there, it waits for. float64"""
        device = self.group_of_latent_F.device
        return torch.tensor(self.prefix_weights, dtype=torch.float64, device=device)


def prefix_errors(groups_BMO: Tensor, start_BO: Tensor) -> Tensor:
    """ŷ_i − y of every prefix, in place of each group's own contribution.

    `start_BO` is b_dec − y."""
    groups_BMO[:, 0] += start_BO
    for i in range(1, groups_BMO.shape[1]):
        groups_BMO[:, i] += groups_BMO[:, i - 1]
    return groups_BMO


def group_gradients(errors_BMO: Tensor, scale_BM: Tensor) -> Tensor:
    """G_j = Σ_{i≥j} scale_i (ŷ_i − y), in place of the errors."""
    errors_BMO *= scale_BM.unsqueeze(2)
    for j in range(errors_BMO.shape[1] - 2, -1, -1):
        errors_BMO[:, j] += errors_BMO[:, j + 1]
    return errors_BMO
