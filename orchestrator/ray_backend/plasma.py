"""Rows through Ray's object store: written once, read by every cell of a node without a copy.

N rows of a portion · D width of a site
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor

from mtc_core.producer import Activations


class Plasma:
    """See Transport. Also across nodes: Ray copies an object once to each node that reads it."""

    def publish(self, rows: Activations) -> ray.ObjectRef:
        # As bytes: numpy does not know bfloat16.
        return ray.put({name: _bytes_of(rows_ND) for name, rows_ND in rows.items()})

    def open(self, handle: Any, device: str) -> Activations:
        """handle: what `ray.get` makes of a reference."""
        return {
            name: _tensor(content).view(getattr(torch, dtype)).to(device)
            for name, (dtype, content) in handle.items()
        }


def _bytes_of(rows_ND: Tensor) -> tuple[str, np.ndarray]:
    content = rows_ND.contiguous().view(torch.uint8).cpu().numpy()
    return str(rows_ND.dtype).removeprefix("torch."), content


def _tensor(content: np.ndarray) -> Tensor:
    """Without a copy of memory that is the store's: it is only read."""
    try:
        return torch.from_dlpack(content)
    except BufferError:  # an older numpy hands out nothing that is read-only
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(content)
