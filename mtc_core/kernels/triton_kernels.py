"""A training step on a GPU that never waits for it: every size is known beforehand, and what a step
finds stays on the device. In float32, or in bfloat16 over float32 weights and float32 sums.

B rows · M groups (and prefixes) · F latents · D dead latents · S segments · I, O source and target
widths · n slots of kept activations
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from mtc_core.aux_loss import AuxGradients
from mtc_core.config import Extreme, TranscoderSpec
from mtc_core.kernels import triton_loops as loops
from mtc_core.kernels.row_pass import Aux, RowPass, base_gradients, gradient_scales
from mtc_core.kernels.segments import Segments
from mtc_core.kernels.triton_selection import Matrix, keep_of_rows
from mtc_core.kernels.triton_selector import TritonSelector
from mtc_core.learner import Learner
from mtc_core.objective import Batch
from mtc_core.pre_activations import PreActivations
from mtc_core.ridge import inner
from mtc_core.selection import Kept
from mtc_core.statistics import scaled_rows

BY_LATENT = ("W_enc", "b_enc", "W_dec")
WIDE = 1024  # columns above which a program takes fewer rows at once, with more threads
VECTOR_BLOCK = 1024


class TritonKernels:
    """Of one transcoder: `half` keeps a bfloat16 copy of its weights."""

    name = "triton"
    waits = False
    scaled_rows = staticmethod(scaled_rows)
    inner = staticmethod(inner)
    linear = staticmethod(torch.nn.functional.linear)

    def __init__(self, half: bool = False) -> None:
        self.half = half
        self._halves: dict[str, tuple[int, Tensor]] = {}

    def selector(self, spec: TranscoderSpec, extreme: Extreme, device: torch.device) -> Any:
        return TritonSelector(spec, extreme, device)

    def keep_largest(self, rows_BD: Tensor, k: int) -> Tensor:
        """The rows with all but the k largest positive entries of each set to 0, in place."""
        every = torch.ones(len(rows_BD), dtype=torch.int32, device=rows_BD.device)
        keep_of_rows(Matrix(rows_BD), every, k, 0.0)
        return rows_BD

    def pre_activations(self, learner: Learner, x_BI: Tensor, cut: float) -> PreActivations:
        """Of rounded rows and weights in bfloat16; float32 they are in any case, for then few are
        equal at the cut and none must be computed again."""
        weights = learner.weights
        F = weights.b_enc.numel()
        pre_BF = learner.workspace.matrix(len(x_BI), F, x_BI.device, torch.float32)
        W_enc = self._operand("W_enc", weights.W_enc)
        _product(self._rounded(x_BI), W_enc.T, pre_BF)
        return PreActivations(pre_BF, bias_F=weights.b_enc)

    def pass_rows(self, learner: Learner, batch: Batch, kept: Kept) -> RowPass:
        """Losses of the selected activations, and gradients of what each group contributes."""
        weights, objective = learner.weights, learner.objective
        y_BO = weights.without_skip(batch.x_BI, batch.y_BO)
        (B, d_out), M = y_BO.shape, len(objective.prefix_weights) - 1
        dtype = torch.bfloat16 if self.half else torch.float32
        # Pre-activations are done with.
        G_BMO = learner.workspace.matrix(B * M, d_out, y_BO.device, dtype).view(B, M, d_out)
        residual_BO, squares_BM = y_BO.new_empty(B, d_out), y_BO.new_empty(B, M)
        group_F1 = torch.nn.functional.pad(objective.group_of_latent_F, (0, 1))
        bags_n = kept.rows_n * M + group_F1[kept.latents_n]
        starts = torch.searchsorted(bags_n, torch.arange(B * M + 1, device=y_BO.device))
        scale_BM = gradient_scales(batch, objective)
        loops.pass_rows[(B,)](
            starts, kept.latents_n, kept.acts_n, self._operand("W_dec", weights.W_dec),
            weights.b_dec, y_BO, scale_BM, G_BMO, residual_BO, squares_BM, d_out,
            M=M, BLOCK=triton.next_power_of_2(d_out), **_tiles(d_out),
        )  # fmt: skip
        return RowPass.of(learner, batch, kept, squares_BM, residual_BO, G_BMO)

    def update(self, learner: Learner, batch: Batch, passed: RowPass, aux: Aux) -> None:
        """Adam on every parameter; decoder rows leave the step at unit norm. Nothing happens where
        the loss was not finite."""
        weights, good, adam = learner.weights, learner.watch.good, _adam(learner)
        tensors = weights.tensors()
        for name, gradient in base_gradients(weights, batch, passed).items():
            size = gradient.numel()
            loops.update_vector[(triton.cdiv(size, VECTOR_BLOCK),)](
                gradient, tensors[name], *_moments(learner, tensors[name]), good, *adam, size,
                BLOCK=VECTOR_BLOCK,
            )  # fmt: skip
        F, d_in = weights.W_enc.shape
        d_out = weights.W_dec.shape[1]
        segments = Segments.of(passed.kept, F)
        sums = self._sums(learner, batch, segments, passed.G_BMO)
        moments = [part for name in BY_LATENT for part in _moments(learner, tensors[name])]
        halves = [self._operand(name, tensors[name]) for name in ("W_enc", "W_dec")]
        widest = max(d_in, d_out)
        loops.update_latent[(F,)](
            segments.segments_F1, *sums, *_aux(aux, learner), *(tensors[n] for n in BY_LATENT),
            *moments, *halves, good, *adam, d_in, d_out, AUX=aux is not None, HALF=self.half,
            BLOCK_I=triton.next_power_of_2(d_in), BLOCK_O=triton.next_power_of_2(d_out),
            num_warps=_tiles(widest)["num_warps"],
        )  # fmt: skip
        for state in learner.optimizer.state.values():
            state["step"] += good

    def _sums(
        self, learner: Learner, batch: Batch, segments: Segments, G_BMO: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of each segment: what it adds to the gradients of its latent's weights."""
        S, M = segments.first_S.numel(), G_BMO.shape[1]
        x_BI = self._rounded(batch.x_BI)
        W_dec = self._operand("W_dec", learner.weights.W_dec)
        d_in, d_out = x_BI.shape[1], W_dec.shape[1]
        make = batch.y_BO.new_empty
        enc_SI, b_S, dec_SO = make(S, d_in), make(S), make(S, d_out)
        loops.sum_segment[(S,)](
            segments.latent_S, segments.first_S, segments.last_S, segments.rows_n, segments.acts_n,
            learner.objective.group_of_latent_F, W_dec, G_BMO, x_BI, enc_SI, b_S, dec_SO,
            d_in, d_out, M,
            BLOCK_I=triton.next_power_of_2(d_in), BLOCK_O=triton.next_power_of_2(d_out),
            **_tiles(max(d_in, d_out)),
        )  # fmt: skip
        return enc_SI, b_S, dec_SO

    def _operand(self, name: str, weight: Tensor) -> Tensor:
        """A weight as products read it. The bfloat16 copy is written by each update; it is made
        anew where somebody else has written the weight, which torch counts."""
        if not self.half:
            return weight
        version, copy = self._halves.get(name, (-1, weight))
        if version != weight._version:
            copy = weight.to(torch.bfloat16)
            self._halves[name] = (weight._version, copy)
        return copy

    def _rounded(self, x_BI: Tensor) -> Tensor:
        return x_BI.to(torch.bfloat16) if self.half else x_BI.contiguous()


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """a @ b in float32, whatever they are in."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    elif a.device.type == "cuda":
        torch.mm(a, b, out_dtype=torch.float32, out=out)
    else:  # no CPU has this: the interpreter's tests
        torch.mm(a.float(), b.float(), out=out)


def _tiles(width: int) -> dict[str, int]:
    """Rows that a program reads at once, and its threads: not tuned on any GPU yet."""
    return {"TILE": 4, "num_warps": 4} if width <= WIDE else {"TILE": 2, "num_warps": 8}


def _adam(learner: Learner) -> tuple[float, ...]:
    rate, rise, beta1, beta2, eps = learner.adam
    return rate, rise, 1 - beta1, beta2, 1 - beta2, eps


def _moments(learner: Learner, parameter: Tensor) -> tuple[Tensor, Tensor]:
    state = learner.optimizer.state[parameter]
    return state["exp_avg"], state["exp_avg_sq"]


def _aux(aux: AuxGradients | None, learner: Learner) -> list[Tensor]:
    """Each latent's row in the aux gradients, or -1; and those."""
    weights = learner.weights
    place_F = torch.full_like(weights.b_enc, -1, dtype=torch.int64)
    if aux is None:
        return [place_F, weights.W_enc, weights.b_enc, weights.W_dec]  # never read
    place_F.index_copy_(0, aux.dead_D, torch.arange(aux.dead_D.numel(), device=place_F.device))
    return [place_F, aux.W_enc_DI.contiguous(), aux.b_enc_D, aux.W_dec_DO.contiguous()]
