"""A selection in float32 for the price of a product in bfloat16, where the CPU multiplies those.

Of x W_encᵀ only the few largest entries count. The product in bfloat16 says of every entry how
large it may be at most, and those that may be above a bound are computed in float32. So which are
found, and their values, do not depend on how that product was rounded:
|x̃·w̃ − x·w| ≤ ‖x̃ − x‖ ‖w̃‖ + ‖x‖ ‖w̃ − w‖, with norms that are measured, and ‖x‖ ≤ ‖x̃‖ + ‖x̃ − x‖.
From a product in float32, of which sums alone are rounded, the same are found: it is taken where
one in bfloat16 lets too much through.

B rows · F latents · I source width · n entries
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

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
MOST = 1 / 20  # of all entries; computing more takes about as long as a product in float32
FULL_STEPS = 10  # in float32, until bfloat16 is tried again


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU does: else a product in bfloat16 takes longer than one in float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return supported is not None and supported()


@dataclass(slots=True)
class SieveMemory:
    """What the sieves of one transcoder's steps share. It changes their time, never their result.

    full_steps: coming ones whose product is in float32."""

    room: Room = field(default_factory=Room)
    full_steps: int = 0


@dataclass(frozen=True, slots=True)
class Product:
    """x Wᵀ, in bfloat16 or float32, and how far it may be off: by lost_B norm_F + most_B lost_F and
    `rounding` of itself."""

    product_BF: Tensor
    rounding: float
    lost_B: Tensor
    most_B: Tensor
    norm_F: Tensor
    lost_F: Tensor

    @property
    def half(self) -> bool:
        return self.product_BF.dtype == torch.bfloat16

    def arrays(self) -> list[Any]:
        """As the loops take them; numpy has no bfloat16."""
        integers, places = (torch.int16, 1 << 16) if self.half else (torch.int32, 1)
        bits = [self.product_BF.view(integers).numpy(), np.int32(places)]
        tensors = (self.lost_B, self.most_B, self.norm_F, self.lost_F)
        return [np.float32(self.rounding), *bits, *(t.numpy() for t in tensors)]


def sieved(
    learner: Learner, x_BI: Tensor, memory: SieveMemory, addmm: Addmm = torch.addmm
) -> PreActivations | None:
    """Pre-activations of which a sieve tells what is above a bound; None where one of the rows or
    weights is not finite. addmm: for products in float32."""
    W_FI, b_enc = learner.weights.W_enc.detach(), learner.weights.b_enc.detach()
    half_BI, x_norm_B, x_lost_B = _halved(x_BI)
    half_FI, W_norm_F, W_lost_F = _halved(W_FI)
    most_B = SLACK * (x_norm_B + x_lost_B)
    if most_B.isnan().any() or not W_norm_F.isfinite().all():
        return None
    # Both sums of I products are rounded, too: this one, and that in float32.
    summing_B = 2 * (x_BI.shape[1] + 1) * FLOAT_ROUNDING * most_B
    full = memory.full_steps > 0
    memory.full_steps -= full
    dtype = torch.float32 if full else torch.bfloat16
    product_BF = learner.workspace.matrix(len(x_BI), len(W_FI), x_BI.device, dtype)
    if full:
        addmm(torch.zeros_like(b_enc), x_BI, W_FI.T, out=product_BF)
        slack = (4 * FLOAT_ROUNDING, summing_B, summing_B)
    else:
        torch.mm(half_BI, half_FI.T, out=product_BF)
        slack = (HALF_ROUNDING, SLACK * x_lost_B + summing_B, most_B)
    product = Product(product_BF, *slack, W_norm_F, W_lost_F)
    sieve = Sieve(learner, x_BI, product, memory, addmm)
    return PreActivations(product_BF, bias_F=b_enc, sieve=sieve)


class Sieve:
    """Of a step's pre-activations, those above a bound."""

    def __init__(
        self, learner: Learner, x_BI: Tensor, product: Product, memory: SieveMemory, addmm: Addmm
    ) -> None:
        self._learner, self._x_BI, self._addmm = learner, x_BI, addmm
        self._product, self._memory = product, memory

    def above(self, bound: float, left_out_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Ascending flat indices of the pre-activations above a bound, and those; none of the rows
        that are left out."""
        product, memory, weights = self._product, self._memory, self._learner.weights
        b_enc = weights.b_enc.detach()
        if left_out_B is None:
            left_out_B = torch.zeros(len(self._x_BI), dtype=torch.bool)
        # Sums with the bias are rounded, as is the bound.
        least = bound - 4 * FLOAT_ROUNDING * (float(b_enc.abs().max()) + bound)
        size, cuts = product.product_BF.numel(), even_cuts(len(self._x_BI))
        indices, values = memory.room.of(size, torch.float32)
        done = spread(
            loops.above,
            cuts,
            np.float32(bound),
            np.float32(least),
            *product.arrays(),
            left_out_B.numpy(),
            self._x_BI.numpy(),
            weights.W_enc.detach().numpy(),
            b_enc.numpy(),
            indices,
            values,
        )
        counts, computed = zip(*done, strict=True)
        if product.half and sum(computed) > MOST * size:
            memory.full_steps = FULL_STEPS
        return joined([cut * b_enc.numel() for cut in cuts], counts, indices, values)

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
