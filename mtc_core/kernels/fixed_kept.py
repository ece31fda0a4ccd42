"""A step's activations in a buffer whose size does not depend on how many there are.

F latents · n slots, of which `number` are filled
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtc_core.selection import Kept


@dataclass(frozen=True, slots=True)
class FixedKept(Kept):
    """As Kept; slots that are not filled come last, with activation 0 at one row and one latent
    more than there are, so that they ascend too and belong to nobody."""

    filled: Tensor

    @property
    def number(self) -> Tensor:
        """How many there are, on their device."""
        return self.filled

    def reset(self, counters_F: Tensor) -> None:
        """Set the counters of latents that are on to 0."""
        on_F1 = torch.zeros(counters_F.numel() + 1, dtype=torch.bool, device=counters_F.device)
        on_F1.index_fill_(0, self.latents_n, True)
        counters_F.masked_fill_(on_F1[:-1], 0)

    @classmethod
    def from_places(
        cls, places_n: Tensor, acts_n: Tensor, filled: Tensor, d_sae: int, rows: int
    ) -> FixedKept:
        """places_n: flat indices, rows * d_sae in empty slots."""
        rows_n = torch.div(places_n, d_sae, rounding_mode="floor")
        latents_n = (places_n - rows_n * d_sae).masked_fill(rows_n == rows, d_sae)
        return cls(rows_n, latents_n, acts_n, filled)
