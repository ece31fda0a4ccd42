"""What steps of peer_kernels.py are given, and ours on it.

Latents are in as many equal parts as a row has activations, and each row is on in one of each: then
a loss of all prefixes of a row's activations is one of as many groups, and both can be compared.

B rows · K activations kept in each · F latents · P of a part · I, O source and target widths ·
n = B K
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtc_core.config import ComputeDtype, Kernels
from mtc_core.kernels.fixed_kept import FixedKept
from mtc_core.kernels.step_kernels import step_kernels
from mtc_core.learner import Learner, LossWatch
from mtc_core.objective import Batch, Objective, Weights
from mtc_core.selection import Kept
from mtc_core.trainer import fresh_moments
from mtc_core.workspace import Workspace

LR, BETAS = 1e-4, (0.9, 0.999)
SKEW = 0.7  # the r-th latent of a part is on r^-0.7 times as often as the first


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows, width of both sites, latents, activations of a row."""

    rows: int
    d: int
    d_sae: int
    k: int

    def __str__(self) -> str:
        return f"{self.rows} rows, width {self.d}, {self.d_sae} latents, k {self.k}"


SHAPES = {
    "gpt2": Shape(8192, 768, 12288, 64),
    "gemma-2-2b": Shape(8192, 2304, 36864, 64),
    "peers": Shape(2048, 576, 4608, 32),  # of peers.py
    "tiny": Shape(32, 256, 512, 8),  # for Triton's interpreter
}


@dataclass(frozen=True, slots=True)
class Problem:
    latents_BK: Tensor  # ascending in each row
    acts_BK: Tensor
    x_BI: Tensor
    y_BO: Tensor
    W_enc_FI: Tensor
    W_dec_FO: Tensor  # rows of unit norm

    @classmethod
    def of(cls, shape: Shape, device: str, seed: int = 0) -> Problem:
        """Random, the same on every device; some latents are on far more often than others."""
        draw = torch.Generator().manual_seed(seed)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=draw)

        part = shape.d_sae // shape.k
        popular_P = (torch.arange(part) + 1.0) ** -SKEW
        latents_BK = popular_P.multinomial(
            shape.rows * shape.k, replacement=True, generator=draw
        ).view(shape.rows, shape.k)
        W_dec_FO = normal(shape.d_sae, shape.d)
        parts = (
            latents_BK + part * torch.arange(shape.k),
            normal(shape.rows, shape.k).abs() + 0.01,
            normal(shape.rows, shape.d),
            normal(shape.rows, shape.d),
            normal(shape.d_sae, shape.d),
            W_dec_FO / W_dec_FO.norm(dim=1, keepdim=True),
        )
        return cls(*(part.to(device) for part in parts))

    def weights(self) -> Weights:
        """Copies: a step changes them."""
        W_enc, W_dec = self.W_enc_FI.clone(), self.W_dec_FO.clone()
        return Weights(
            W_enc, W_enc.new_zeros(len(W_enc)), W_dec, self.y_BO.new_zeros(W_dec.shape[1])
        )


def first_moments(weights: Weights, adam: torch.optim.Adam) -> dict[str, Tensor]:
    """Adam's, of the weight matrices."""
    tensors = weights.tensors()
    return {name: adam.state[tensors[name]]["exp_avg"].clone() for name in ("W_enc", "W_dec")}


class Ours:
    """Row passes and updates of the product; with one group the problem is that of others."""

    def __init__(
        self, problem: Problem, kernels: Kernels, dtype: ComputeDtype, groups: int
    ) -> None:
        device, self.prefixes = problem.x_BI.device, groups
        weights = problem.weights()
        d_sae, d_out = weights.W_dec.shape
        self._kernels = step_kernels(kernels, device, torch.float32, dtype == "bfloat16")
        self.name = self._kernels.name  # not what was asked for, where a device has others
        tensors = list(weights.tensors().values())
        optimizer = torch.optim.Adam(tensors, lr=LR, betas=BETAS, fused=True)
        for parameter in tensors:
            optimizer.state[parameter] = fresh_moments(parameter)
        group_F = torch.arange(groups, device=device).repeat_interleave(d_sae // groups)
        objective = Objective((0.0, *[1 / groups] * groups), float(d_out), group_F)
        self._learner = Learner(weights, optimizer, objective, Workspace(), LossWatch(device))
        ones_B = problem.x_BI.new_ones(len(problem.x_BI))
        self._batch = Batch(problem.x_BI, problem.y_BO, ones_B, ones_B.bool(), ones_B.sum())
        self._kept = self._as_kept(problem, d_sae, fixed=not self._kernels.waits)

    def decoder(self) -> None:
        """No gradient of the decoder, which is part of the update; those of activations with
        numba and torch."""
        with torch.no_grad():
            self._kernels.pass_rows(self._learner, self._batch, self._kept)

    def whole(self) -> None:
        with torch.no_grad():
            passed = self._kernels.pass_rows(self._learner, self._batch, self._kept)
            self._kernels.update(self._learner, self._batch, passed, None)
        self._learner.step_index += 1

    def first_moments(self) -> dict[str, Tensor]:
        return first_moments(self._learner.weights, self._learner.optimizer)

    @staticmethod
    def _as_kept(problem: Problem, d_sae: int, fixed: bool) -> Kept:
        """In row-major order, as a selection leaves them."""
        rows = torch.arange(len(problem.latents_BK), device=problem.latents_BK.device)
        flat_n = (rows[:, None] * d_sae + problem.latents_BK).flatten()
        acts_n = problem.acts_BK.flatten()
        if not fixed:
            return Kept.from_flat(flat_n, acts_n, d_sae)
        filled = torch.tensor(flat_n.numel(), device=flat_n.device)
        return FixedKept.from_places(flat_n, acts_n, filled, d_sae, len(rows))
