"""A training step on a CPU in float32, by compiled loops; torch_kernels.py is its slow twin.

Two passes instead of a dozen: by row from the kept activations to their gradients, by latent from
there to new weights. Selections are equal to torch's; sums are taken in another order.

B rows · M groups (and prefixes) · F latents · D dead latents · I, O source and target widths ·
n nonzeros
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtc_core import onednn
from mtc_core.aux_loss import AuxGradients
from mtc_core.kernels import loops
from mtc_core.kernels.found import Room, joined
from mtc_core.kernels.host_kernels import HostKernels
from mtc_core.kernels.row_pass import Aux, RowPass, base_gradients, gradient_scales
from mtc_core.kernels.sieve import SieveMemory, sieved
from mtc_core.kernels.threads import PARTS, even_cuts, spread
from mtc_core.learner import Learner
from mtc_core.objective import Batch, Weights
from mtc_core.pre_activations import PreActivations
from mtc_core.selection import Kept

BY_LATENT = ("W_enc", "b_enc", "W_dec")
LATENT_COST = 10  # what a latent's Adam step takes, in nonzeros


class NumbaKernels(HostKernels):
    """Loops of mtc_core/kernels/loops.py, on torch's number of threads."""

    name = "numba"

    def __init__(self, half: bool = False, sieve: bool = False) -> None:
        """sieve: large pre-activations are found by a product in bfloat16 (sieve.py)."""
        super().__init__(half)
        self._sieve = SieveMemory() if sieve else None
        if onednn.is_faster_here():
            self.addmm, self.inner, self.linear = onednn.addmm, onednn.inner, onednn.linear
        self._room = Room()

    def pre_activations(self, learner: Learner, x_BI: Tensor, cut: float) -> PreActivations:
        found = None
        if self._sieve is not None and cut > 0:
            found = sieved(learner, x_BI, self._sieve, self.addmm)
        return found or super().pre_activations(learner, x_BI, cut)

    def above(self, values_N: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        """Ascending indices of the values above a bound that few are above, and those values."""
        assert bound >= 0, bound
        values, limits = values_N.detach(), values_N.new_tensor([bound, math.inf])
        if values.dtype == torch.bfloat16:
            # Bits of what is not negative are in the order of the values; numpy has no bfloat16.
            values, limits = values.view(torch.int16), limits.view(torch.int16)
        array, (low, high) = values.numpy(), limits.numpy()
        indices, found = self._room.of(values.numel(), values.dtype)
        cuts = even_cuts(array.size)
        counts = spread(loops.above, cuts, array, low, high, indices, found)
        flat_n, values_n = joined(cuts, counts, indices, found)
        return flat_n, values_n.view(values_N.dtype)

    def least(self, values_N: Tensor, wanted: int) -> float:
        """The `wanted`-th largest value, or 0 if that is not positive."""
        if values_N.dtype != torch.float32:
            return super().least(values_N, wanted)
        bits = loops.least(*_arrays(values_N.detach().view(torch.int32)), wanted)
        return float(np.array(bits, np.int32).view(np.float32))

    def rank(self, flat_n: Tensor, values_n: Tensor, budget: int, d_sae: int) -> Kept:
        """The `budget` largest positive values, at ascending flat indices; equals go to the
        lowest."""
        size = min(budget, flat_n.numel())
        kept = [flat_n.new_empty(size), flat_n.new_empty(size), values_n.new_empty(size)]
        values = values_n.contiguous()
        bits = values.view(torch.int32)
        n = loops.rank(*_arrays(flat_n, values, bits), budget, d_sae, *_written(*kept))
        return Kept(*(part[:n] for part in kept))

    def scaled_rows(self, rows_BD: Tensor, centre_D: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """(row − centre) · scale, and ‖row − centre‖ of every row."""
        out_BD, distance_B = rows_BD.new_empty(rows_BD.shape), rows_BD.new_empty(rows_BD.shape[0])
        arrays = [*_arrays(rows_BD, centre_D), *_written(out_BD, distance_B)]
        spread(loops.scale_rows, even_cuts(rows_BD.shape[0]), np.float32(scale), *arrays)
        return out_BD, distance_B

    def pass_rows(self, learner: Learner, batch: Batch, kept: Kept) -> RowPass:
        """Losses of the selected activations, and gradients up to them."""
        weights, objective = learner.weights, learner.objective
        y_BO = weights.without_skip(batch.x_BI, batch.y_BO)
        (B, width), M = y_BO.shape, len(objective.prefix_weights) - 1
        # Pre-activations are done with. Group by group: latents are updated in that order.
        G_MBO = learner.workspace.matrix(M * B, width, y_BO.device, y_BO.dtype).view(M, B, width)
        residual_BO, squares_BM = y_BO.new_empty(B, width), y_BO.new_empty(B, M)
        d_act_n, starts = torch.empty_like(kept.acts_n), np.empty(B + 1, np.int64)
        loops.offsets(kept.rows_n.numpy(), starts)
        scale_BM = gradient_scales(batch, objective)
        spread(
            loops.pass_rows,
            even_cuts(B),
            starts,
            *_arrays(kept.latents_n, kept.acts_n, objective.group_of_latent_F),
            *_arrays(weights.W_dec, weights.b_dec, y_BO, scale_BM),
            *_written(G_MBO, residual_BO, squares_BM, d_act_n),
        )
        G_BMO = G_MBO.transpose(0, 1)
        return RowPass.of(learner, batch, kept, squares_BM, residual_BO, G_BMO, d_act_n)

    def update(self, learner: Learner, batch: Batch, passed: RowPass, aux: Aux) -> None:
        """Adam on every parameter; decoder rows leave the step at unit norm."""
        weights, optimizer = learner.weights, learner.optimizer
        objective = learner.objective
        tensors = weights.tensors()
        for name, gradient in base_gradients(weights, batch, passed).items():
            tensors[name].grad = gradient
        optimizer.step()  # of those alone
        optimizer.zero_grad()
        states = [optimizer.state[tensors[name]] for name in BY_LATENT]
        for state in states:
            state["step"] += 1
        ours: list[Any] = []
        for name, state in zip(BY_LATENT, states, strict=True):
            ours += _written(tensors[name], state["exp_avg"], state["exp_avg_sq"])
        assert passed.d_act_n is not None
        starts, ordered = _by_latent(passed.kept, passed.d_act_n, weights.b_enc.numel())
        spread(
            loops.update_latents,
            _latent_cuts(starts),
            starts,
            *ordered,
            *_arrays(objective.group_of_latent_F),
            *_aux(aux, weights),
            *_arrays(batch.x_BI[None], passed.G_BMO.transpose(0, 1)),
            _adam(learner),
            *ours,
        )


def _aux(aux: AuxGradients | None, weights: Weights) -> list[Any]:
    """Each latent's row in the aux gradients, or -1; and those."""
    place = np.full(weights.b_enc.numel(), -1, np.int64)
    if aux is None:
        return [place, *_arrays(weights.W_enc[:0], weights.b_enc[:0], weights.W_dec[:0])]
    place[aux.dead_D.numpy()] = np.arange(aux.dead_D.numel())
    return [place, *_arrays(aux.W_enc_DI, aux.b_enc_D, aux.W_dec_DO)]


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _written(*tensors: Tensor) -> list[Any]:
    """Of tensors that a loop writes to: a copy would be written instead of them."""
    assert all(tensor.is_contiguous() for tensor in tensors)
    return _arrays(*tensors)


def _by_latent(kept: Kept, d_act_n: Tensor, d_sae: int) -> tuple[Any, list[Any]]:
    """Where each latent's nonzeros start, and their rows, activations and gradients."""
    rows, latents, acts, d_act = _arrays(kept.rows_n, kept.latents_n, kept.acts_n, d_act_n)
    starts = np.empty(d_sae + 1, np.int64)
    loops.offsets(latents, starts)
    ordered = [np.empty_like(rows), np.empty_like(acts), np.empty_like(d_act)]
    loops.by_latent(latents, rows, acts, d_act, starts, *ordered)
    return starts, ordered


def _latent_cuts(starts: Any) -> list[int]:
    """Cuts of the latents into shares of about equal work."""
    work = starts + LATENT_COST * np.arange(starts.size)
    parts = min(starts.size - 1, PARTS * torch.get_num_threads())
    wanted = work[-1] * np.arange(1, parts) // parts
    return [0, *np.searchsorted(work, wanted).tolist(), starts.size - 1]


def _adam(learner: Learner) -> Any:
    rate, rise, beta1, beta2, eps = learner.adam
    with np.errstate(over="ignore"):  # of a rate that is too large for anything to stay finite
        return np.array([1 - beta1, beta2, 1 - beta2, rate, rise, eps], np.float32)
