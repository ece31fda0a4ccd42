"""The output tokens that a latent promotes and suppresses by itself, straight to the logits.

A latent that writes to the residual stream adds a · W_dec[f] to it. Past the last block the stream
x becomes logits through the final norm and the unembedding,

    logits = W_U (g ∘ c(x) / σ(x)) + …      c: minus its mean for a LayerNorm, else nothing

and with σ held fixed, one unit of activation adds W_U (g ∘ c(W_dec[f])) / σ. `effect` is that times
σ: the same for all positions. It leaves out what later blocks make of the latent, and what the
latent does to σ (which scales all logits alike); a soft cap on the logits keeps their order.

F latents · D width of the stream · V vocabulary · m tokens
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtc_core.sites import Site

ON_STREAM = ("mlp_out", "attn_out", "resid_pre", "resid_mid", "resid_post")
CHUNK = 1 << 25  # logits held at once


@dataclass(frozen=True, slots=True)
class Readout:
    """What turns the stream into logits. weight_D: the final norm's own, g. centred: it takes the
    mean out, as a LayerNorm does."""

    weight_D: Tensor
    centred: bool
    W_U_VD: Tensor

    def effect(self, W_dec_FD: Tensor) -> Tensor:
        """[F, D] -> [F, V]: logits that a unit of each latent adds, times σ."""
        rows_FD = W_dec_FD.to(self.W_U_VD.dtype)
        if self.centred:
            rows_FD = rows_FD - rows_FD.mean(1, keepdim=True)
        return (rows_FD * self.weight_D.to(rows_FD.dtype)) @ self.W_U_VD.T


@dataclass(frozen=True, slots=True)
class Promoted:
    """Tokens [F, m] with the largest effects, and with the smallest, most extreme first."""

    promoted_Fm: Tensor
    promotes_Fm: Tensor
    suppressed_Fm: Tensor
    suppresses_Fm: Tensor


@torch.no_grad()
def promoted_tokens(readout: Readout, W_dec_FD: Tensor, m: int) -> Promoted:
    """The m tokens that each latent promotes most and suppresses most."""
    vocabulary = len(readout.W_U_VD)
    parts = []
    for rows_FD in W_dec_FD.split(max(1, CHUNK // vocabulary)):
        effect_FV = readout.effect(rows_FD).float()
        most = effect_FV.topk(min(m, vocabulary), dim=1)
        least = effect_FV.topk(min(m, vocabulary), dim=1, largest=False)
        parts.append((most.indices, most.values, least.indices, least.values))
    return Promoted(*(torch.cat(side) for side in zip(*parts, strict=True)))


def why_not_on_stream(target: Site) -> str:
    """Why a target has no direct effect on the logits; empty where it writes to the stream."""
    if target.kind in ON_STREAM:
        return ""
    if target.kind is None:
        return f"{target} is no site of ours, so it is not known whether it writes to the stream"
    return f"{target} is what a part of a block reads; it is not added to the residual stream"
