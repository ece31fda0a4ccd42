"""The inference threshold: the cut that gives k latents a row on rows nobody trained on.

The mean L0 over n rows equals k when exactly their n·k largest positive activations exceed the
threshold, so it is read off a running list of the largest: exact, and in one pass.

B rows · F latents · n largest values so far
"""

from __future__ import annotations

import torch
from torch import Tensor


class ThresholdCalibration:
    """Collects the largest activations of ordinary calibration rows, at most `max_rows` of them,
    computed with the weights that will be saved."""

    def __init__(self, k: int, max_rows: int, device: torch.device) -> None:
        self.k = k
        self.rows = 0
        self._room = max_rows * k + 1
        self._largest_n = torch.zeros(0, device=device)

    def add(self, pre_BF: Tensor) -> None:
        """Count ordinary rows by their pre-activations."""
        self.rows += pre_BF.shape[0]
        values_n = torch.cat([self._largest_n, pre_BF[pre_BF > 0]])
        room = min(self._room, values_n.numel())
        self._largest_n = values_n.topk(room, sorted=False).values

    def threshold(self) -> float:
        """θ ≥ 0 with mean L0 = k on the rows added; 0 where too few are positive."""
        wanted = self.rows * self.k
        if self._largest_n.numel() <= wanted:
            return 0.0
        return float(self._largest_n.sort(descending=True).values[wanted])
