"""A selection in float32 for the price of a product in bfloat16, where the CPU multiplies those.

Of x W_encᵀ only the few largest entries count. The product in bfloat16 says of every entry how
large it may be at most, and those that may be above a bound are computed in float32. So which are
found, and their values, do not depend on how that product was rounded:
|x̃·w̃ − x·w| ≤ ‖x̃ − x‖ ‖w̃‖ + ‖x‖ ‖w̃ − w‖, with norms that are measured, and ‖x‖ ≤ ‖x̃‖ + ‖x̃ − x‖.

B rows · F latents · I source width · n entries
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from mtc_core.kernels import sieve_loops as loops
from mtc_core.kernels.found import Room, joined
from mtc_core.kernels.threads import even_cuts, spread
from mtc_core.learner import Learner
from mtc_core.pre_activations import Addmm, PreActivations, pre_activations

HALF_ROUNDING = 1.01 * 2.0**-8  # of a number that is rounded to bfloat16, as a share of it
FLOAT_ROUNDING = 2.0**-24
SLACK = 1.001  # norms and bounds are themselves rounded
WIDEST = 0.2  # slack, as a share of the cut; beyond, several times as many are computed as are kept


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU does: else a product in bfloat16 takes longer than one in float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return supported is not None and supported()


def sieved(
    learner: Learner, x_BI: Tensor, cut: float, room: Room, addmm: Addmm = torch.addmm
) -> PreActivations | None:
    """Pre-activations of which a sieve tells what is above a bound near the cut; None where too
    many would have to be computed. addmm: for all of them in float32."""
    half_BI, x_norm_B, x_lost_B = _halved(x_BI)
    half_FI, W_norm_F, W_lost_F = _halved(learner.weights.W_enc.detach())
    # Both sums of I products are rounded, too: this one, and that in float32.
    summing = 2 * (x_BI.shape[1] + 1) * FLOAT_ROUNDING
    highest_norm, highest_lost = W_norm_F.max(), W_lost_F.max()
    x_most_B = x_norm_B + x_lost_B
    slack_B = (x_lost_B + summing * x_most_B) * highest_norm + x_most_B * highest_lost
    if not slack_B.median() < WIDEST * cut:
        return None
    size = (len(x_BI), len(half_FI))
    product_BF = learner.workspace.matrix(*size, x_BI.device, torch.bfloat16)
    torch.mm(half_BI, half_FI.T, out=product_BF)
    sieve = Sieve(learner, x_BI, product_BF, slack_B * SLACK, room, addmm)
    return PreActivations(product_BF, bias_F=learner.weights.b_enc, sieve=sieve)


class Sieve:
    """Of a step's pre-activations, those above a bound. slack_B: by how much the product may be
    off, beside its own rounding."""

    def __init__(
        self,
        learner: Learner,
        x_BI: Tensor,
        product_BF: Tensor,
        slack_B: Tensor,
        room: Room,
        addmm: Addmm,
    ) -> None:
        self._learner, self._x_BI, self._room, self._addmm = learner, x_BI, room, addmm
        self._product_BF, self._slack_B = product_BF, slack_B

    def above(self, bound: float, left_out_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Ascending flat indices of the pre-activations above a bound, and those; none of the rows
        that are left out."""
        weights = self._learner.weights
        # And sums with the bias are rounded, as is the bound.
        largest = float(weights.b_enc.detach().abs().max()) + bound
        slack_B = self._slack_B + 4 * FLOAT_ROUNDING * largest
        if left_out_B is not None:
            slack_B = slack_B.masked_fill(left_out_B, -torch.inf)
        indices, values = self._room.of(self._product_BF.numel(), torch.float32)
        cuts = even_cuts(len(self._x_BI))
        counts = spread(
            loops.above,
            cuts,
            np.float32(bound),
            slack_B.numpy(),
            np.float32(HALF_ROUNDING),
            self._product_BF.view(torch.int16).numpy(),
            self._x_BI.numpy(),
            weights.W_enc.detach().numpy(),
            weights.b_enc.detach().numpy(),
            indices,
            values,
        )
        return joined([cut * len(weights.b_enc) for cut in cuts], counts, indices, values)

    def exact(self) -> PreActivations:
        """All of them, for the price of the product in float32."""
        learner = self._learner
        return pre_activations(learner.weights, self._x_BI, False, learner.workspace, self._addmm)


def _halved(rows_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows in bfloat16, their norms there, and those of what the rounding took."""
    half_BD = torch.empty_like(rows_BD, dtype=torch.bfloat16)
    norm_B, lost_B = torch.empty(len(rows_BD)), torch.empty(len(rows_BD))
    spread(
        loops.halve,
        even_cuts(len(rows_BD)),
        rows_BD.view(torch.int32).numpy(),
        rows_BD.numpy(),
        half_BD.view(torch.int16).numpy(),
        norm_B.numpy(),
        lost_B.numpy(),
    )
    return half_BD, norm_B, lost_B
