"""A large buffer that the trainers of one process take turns with.

Pre-activations are by far the largest tensor of a step. Allocated afresh they are given back to
the operating system each time, and its page faults cost a sixth of the matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Workspace:
    """Memory for one matrix at a time: the next `matrix` may overwrite the last."""

    def __init__(self) -> None:
        self._flat: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def matrix(self, rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """An uninitialised [rows, columns]."""
        size, key = rows * columns, (device, dtype)
        if key not in self._flat or self._flat[key].numel() < size:
            self._flat.pop(key, None)  # before its successor is allocated
            self._flat[key] = torch.empty(size, device=device, dtype=dtype)
        return self._flat[key][:size].view(rows, columns)
