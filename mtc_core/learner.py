"""What a step changes of one transcoder, and what it needs beside the rows to do so."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mtc_core.errors import TrainingStopped
from mtc_core.objective import Objective, Weights
from mtc_core.workspace import Workspace


class LossWatch:
    """Stops a transcoder whose loss is not finite; its weights stay the last good ones.

    Asking a GPU in every step would have it wait for the answer. There the updates of that step and
    all later ones are left out (`good` is 0), and who asks is told."""

    def __init__(self, device: torch.device) -> None:
        self.good = torch.ones((), dtype=torch.int32, device=device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._bad_loss = torch.zeros((), dtype=torch.float64, device=device)

    def look(self, loss: Tensor, step: int) -> None:
        """Take note of the loss of a step, on its device."""
        first = (self.good > 0) & ~torch.isfinite(loss)
        self._bad_step = self._bad_step.masked_fill(first, step)  # where() copies a number, waiting
        self._bad_loss = torch.where(first, loss, self._bad_loss)
        self.good = self.good * ~first

    def check(self) -> None:
        """Raises TrainingStopped, once, if a loss was not finite; waits for the device."""
        if not int(self.good):
            self.good = torch.ones_like(self.good)
            raise TrainingStopped(
                f"the loss is {float(self._bad_loss)} at step {int(self._bad_step)}; lower "
                "its lr (or train.lr), or set model.dtype: float32 if the model's activations "
                "overflow"
            )


@dataclass(slots=True)
class Learner:
    """One transcoder's weights, Adam's moments of them, what is minimised, and scratch memory."""

    weights: Weights
    optimizer: torch.optim.Adam
    objective: Objective
    workspace: Workspace
    watch: LossWatch
    step_index: int = 0  # steps done

    @property
    def adam(self) -> tuple[float, float, float, float, float]:
        """lr / (1 − β1^t), 1 / sqrt(1 − β2^t), β1, β2, ε of the coming step t."""
        (group,) = self.optimizer.param_groups
        beta1, beta2 = group["betas"]
        t = self.step_index + 1
        rate, rise = group["lr"] / (1 - beta1**t), 1 / math.sqrt(1 - beta2**t)
        return rate, rise, beta1, beta2, group["eps"]
