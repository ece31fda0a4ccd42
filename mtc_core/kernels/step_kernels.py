"""The parts of a step that every form of it computes alike, and how to get one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mtc_core.aux_loss import AuxGradients
from mtc_core.config import Kernels
from mtc_core.errors import ConfigError
from mtc_core.kernels.choose import resolve_kernels
from mtc_core.kernels.row_pass import RowPass
from mtc_core.kernels.torch_kernels import TorchKernels
from mtc_core.objective import Batch, Objective, Weights
from mtc_core.selection import Kept, Search
from mtc_core.workspace import Workspace


class StepKernels(Search, Protocol):
    """torch_kernels.py says what each does."""

    name: str

    def scaled_rows(
        self, rows_BD: Tensor, centre_D: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]: ...

    def pass_rows(
        self,
        weights: Weights,
        batch: Batch,
        kept: Kept,
        objective: Objective,
        workspace: Workspace,
    ) -> RowPass: ...

    def update(
        self,
        weights: Weights,
        optimizer: torch.optim.Adam,
        batch: Batch,
        kept: Kept,
        passed: RowPass,
        aux: AuxGradients | None,
        objective: Objective,
    ) -> None: ...


def step_kernels(wanted: Kernels | None, device: torch.device, dtype: torch.dtype) -> StepKernels:
    """The kernels for weights of a dtype on a device."""
    on_cpu = device.type == "cpu" and dtype == torch.float32
    if on_cpu and resolve_kernels(wanted) == "numba":
        try:
            from mtc_core.kernels.numba_kernels import NumbaKernels
        except ImportError as error:  # numba refuses a numpy that it does not know
            raise ConfigError(
                f"numba cannot be loaded: {error}; install versions that fit, or set "
                "train.kernels: torch"
            ) from None
        return NumbaKernels()
    return TorchKernels()
