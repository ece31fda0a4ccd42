"""Where loops put what they find, each thread from a start of its own on.

n entries
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Room:
    """Memory for all entries that may be found. A page of it is taken where one is."""

    def __init__(self) -> None:
        # Not numpy's, which asks for huge pages: six transcoders took half a gigabyte of them.
        self._indices = torch.empty(0, dtype=torch.int64)
        self._values: dict[torch.dtype, Tensor] = {}

    def of(self, size: int, dtype: torch.dtype) -> tuple[Any, Any]:
        """Of indices, and of values of a dtype, to be overwritten by the next."""
        if self._indices.numel() < size:
            self._indices = torch.empty(size, dtype=torch.int64)
            self._values.clear()
        if dtype not in self._values:
            self._values[dtype] = torch.empty(self._indices.numel(), dtype=dtype)
        return self._indices.numpy(), self._values[dtype].numpy()


def joined(
    starts: Sequence[int], counts: Sequence[int], indices: Any, values: Any
) -> tuple[Tensor, Tensor]:
    """What was found from each of the starts on, one after another."""
    parts = [slice(start, start + n) for start, n in zip(starts, counts, strict=False)]
    indices_n, values_n = (np.concatenate([of[part] for part in parts]) for of in (indices, values))
    return torch.from_numpy(indices_n), torch.from_numpy(values_n)
