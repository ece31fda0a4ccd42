"""Kept activations in latent order, cut into segments of which no program has many to sum.

F latents · S segments, of which the last may be empty · n slots of kept activations
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mtc_core.selection import Kept

ACTIVATIONS = 64  # of a segment, at most


@dataclass(frozen=True, slots=True)
class Segments:
    rows_n: Tensor  # in latent order, ascending for each latent; slots that are not filled last
    acts_n: Tensor
    segments_F1: Tensor  # where each latent's segments begin
    latent_S: Tensor
    first_S: Tensor  # a segment's activations are first to last − 1
    last_S: Tensor

    @classmethod
    def of(cls, kept: Kept, d_sae: int) -> Segments:
        """Their number depends on sizes alone."""
        # Fewer bits are sorted in fewer passes.
        narrow = torch.int16 if d_sae < 1 << 15 else torch.int32
        latents_n, order_n = kept.latents_n.to(narrow).sort(stable=True)
        latents = torch.arange(d_sae + 1, device=latents_n.device)
        starts_F1 = torch.searchsorted(latents_n.long(), latents)
        parts_F = (starts_F1.diff() + ACTIVATIONS - 1) // ACTIVATIONS
        segments_F1 = F.pad(torch.cumsum(parts_F, 0), (1, 0))
        size = min(d_sae, latents_n.numel()) + latents_n.numel() // ACTIVATIONS
        segment_S = torch.arange(size, device=latents_n.device)
        latent_S = torch.searchsorted(segments_F1, segment_S, right=True) - 1
        latent_S = latent_S.clamp(max=d_sae - 1)  # beyond the last segment: an empty one
        first_S = starts_F1[latent_S] + (segment_S - segments_F1[latent_S]) * ACTIVATIONS
        last_S = torch.minimum(first_S + ACTIVATIONS, starts_F1[latent_S + 1])
        return cls(
            kept.rows_n[order_n], kept.acts_n[order_n], segments_F1, latent_S, first_S, last_S
        )
