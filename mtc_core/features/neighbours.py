"""The latents that write most nearly the same: nearest by the cosine of their decoder rows.

F latents · O target width · m neighbours
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1 << 24  # cosines held at once


@torch.no_grad()
def nearest_by_decoder(W_dec_FO: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Latents [F, m] and their cosines, nearest first; nobody is its own neighbour."""
    unit_FO = torch.nn.functional.normalize(W_dec_FO.float(), dim=1)
    m = min(m, len(unit_FO) - 1)
    latents, cosines = [], []
    step = max(1, CHUNK // len(unit_FO))
    for begin in range(0, len(unit_FO), step):
        cosine_CF = unit_FO[begin : begin + step] @ unit_FO.T
        cosine_CF.diagonal(begin).fill_(-2)
        found = cosine_CF.topk(m, dim=1)
        latents.append(found.indices)
        cosines.append(found.values)
    return torch.cat(latents), torch.cat(cosines)
