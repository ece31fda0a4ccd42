"""The parts of a step that every form of it computes alike, and how to get one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mtc_core.config import Extreme, Kernels, TranscoderSpec
from mtc_core.errors import ConfigError
from mtc_core.kernels.choose import resolve_kernels
from mtc_core.kernels.row_pass import Aux, RowPass
from mtc_core.kernels.torch_kernels import TorchKernels
from mtc_core.learner import Learner
from mtc_core.objective import Batch
from mtc_core.pre_activations import PreActivations
from mtc_core.selection import Kept
from mtc_core.selector import Selector


class StepKernels(Protocol):
    """torch_kernels.py says what each does."""

    name: str
    waits: bool  # whether a step asks the device for sizes; else it only asks it to work

    def scaled_rows(
        self, rows_BD: Tensor, centre_D: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]: ...

    def inner(self, a_BI: Tensor, b_BO: Tensor) -> Tensor:
        """aᵀ b, in float32."""
        ...

    def linear(self, x_BI: Tensor, W_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """x Wᵀ + bias, in float32."""
        ...

    def pre_activations(self, learner: Learner, x_BI: Tensor, cut: float) -> PreActivations:
        """cut: of the last step's selection, or 0."""
        ...

    def selector(
        self, spec: TranscoderSpec, extreme: Extreme, device: torch.device
    ) -> Selector: ...

    def keep_largest(self, rows_BD: Tensor, k: int) -> Tensor: ...

    def pass_rows(self, learner: Learner, batch: Batch, kept: Kept) -> RowPass: ...

    def update(self, learner: Learner, batch: Batch, passed: RowPass, aux: Aux) -> None: ...


def step_kernels(
    wanted: Kernels | None,
    device: torch.device,
    dtype: torch.dtype,
    half: bool = False,
    sparse: bool = False,
) -> StepKernels:
    """The kernels for weights of a dtype on a device. half: products in bfloat16. sparse: whether
    of a batch's pre-activations only those above a cut are wanted, and few are.

    Raises ConfigError for kernels that cannot be had there."""
    chosen = resolve_kernels(wanted, device.type) if dtype == torch.float32 else "torch"
    try:
        match chosen:
            case "numba":
                from mtc_core.kernels.numba_kernels import NumbaKernels
                from mtc_core.kernels.sieve import multiplies_bfloat16

                return NumbaKernels(half, sparse and multiplies_bfloat16())
            case "triton":
                from mtc_core.kernels.triton_kernels import TritonKernels

                return TritonKernels(half)
            case "torch":
                return TorchKernels(half)
    except ImportError as error:  # numba refuses a numpy that it does not know
        raise ConfigError(
            f"train.kernels: {chosen} cannot be loaded: {error}; install versions that fit, or set "
            "train.kernels: torch"
        ) from None
