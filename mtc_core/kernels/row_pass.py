"""What a pass over the rows of a step leaves to the update of the weights.

B rows · P prefixes · M groups · O target width · n nonzeros
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtc_core.aux_loss import AuxGradients
from mtc_core.learner import Learner
from mtc_core.objective import Batch, Objective, Weights
from mtc_core.selection import Kept

Aux = AuxGradients | None


@dataclass(frozen=True, slots=True)
class RowPass:
    """Losses of one step, and the gradients of their weighted sum with respect to what each row
    computed: from these and the rows follow those of the weights."""

    kept: Kept  # what it was made of
    loss_P: Tensor  # weighted mean squared error over V of prefixes 1..m, float64
    bias_loss: Tensor  # the same for the bias alone
    fvu_P: Tensor  # unweighted, over ordinary rows only: what is reported
    residual_BO: Tensor  # y − ŷ_m
    G_BMO: Tensor  # of each group's contribution; past the first, where a row has nonzeros of it
    base_BO: Tensor  # of ŷ_0: of b_dec in every row
    d_act_n: Tensor | None = None  # of every kept activation, unless the update finds it itself

    @classmethod
    def of(
        cls,
        learner: Learner,
        batch: Batch,
        kept: Kept,
        squares_BM: Tensor,
        residual_BO: Tensor,
        G_BMO: Tensor,
        d_act_n: Tensor | None = None,
    ) -> RowPass:
        """squares_BM: ‖ŷ_i − y‖² of every row."""
        weights, objective = learner.weights, learner.objective
        loss_P, fvu_P = losses(squares_BM.double(), batch, objective.variance)
        bias_loss, bias_BO = bias_term(weights, batch, objective)
        base_BO = G_BMO[:, 0].to(batch.y_BO.dtype)
        if bias_BO is not None:
            base_BO = base_BO + bias_BO
        return cls(kept, loss_P, bias_loss, fvu_P, residual_BO, G_BMO, base_BO, d_act_n)

    def loss(self, objective: Objective) -> Tensor:
        weights_P = objective.weights_P
        return weights_P[0] * self.bias_loss + (weights_P[1:] * self.loss_P).sum()


def losses(squares_BM: Tensor, batch: Batch, variance: float) -> tuple[Tensor, Tensor]:
    """loss_P and fvu_P from ‖ŷ_i − y‖² of every row, float64 [B, M]."""
    loss_P = batch.weight_B.double() @ squares_BM / (batch.count.double() * variance)
    ordinary_B = batch.ordinary_B.double()
    return loss_P, ordinary_B @ squares_BM / (ordinary_B.sum().clamp(min=1) * variance)


def gradient_scales(batch: Batch, objective: Objective) -> Tensor:
    """What ŷ_i − y of a row is multiplied by in G: 2 w_i weight / (n V). [B, M]"""
    row_scale_B = batch.weight_B / (batch.count * objective.variance)
    return 2 * row_scale_B[:, None] * objective.weights_P[1:].to(row_scale_B.dtype)


def bias_term(weights: Weights, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor | None]:
    """Loss of ŷ_0, and its gradient in every row (None where it has no weight)."""
    if not (w_0 := objective.prefix_weights[0]):
        return batch.count.new_zeros((), dtype=torch.float64), None
    error_BO = weights.base_error(batch.x_BI, batch.y_BO)
    weighted_BO = error_BO * (batch.weight_B / (batch.count * objective.variance))[:, None]
    return (error_BO * weighted_BO).double().sum(), 2 * w_0 * weighted_BO


def base_gradients(weights: Weights, batch: Batch, passed: RowPass) -> dict[str, Tensor]:
    """Those of what is in every prefix: b_dec, and W_skip if there is one."""
    found = {"b_dec": passed.base_BO.sum(0)}
    if weights.W_skip is not None:
        found["W_skip"] = passed.base_BO.T @ batch.x_BI
    return found
