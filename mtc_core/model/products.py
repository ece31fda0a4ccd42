"""The matrix products of a forward pass in float32, on CPUs that torch has the slower library for.

torch multiplies float32 by MKL, which on AMD's CPUs takes vectors of 256 bits. oneDNN, which torch
has, too, takes 512: a forward pass took 592 ms instead of 763 on a Zen 4 (benchmarks/LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

_CPU = Path("/proc/cpuinfo")


def is_faster_here() -> bool:
    """Whether oneDNN's products are, on this CPU."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        first = _CPU.read_text(encoding="utf-8").split("\n\n", 1)[0]  # all cores are alike
    except OSError:  # not Linux
        return False
    return "AuthenticAMD" in first and "avx512f" in first.split()


def use_faster_products(model: nn.Module) -> None:
    """Have a model's linear layers multiply by oneDNN where that is faster: what is float32, on a
    CPU and wants no gradient. Results differ by rounding."""
    from transformers.pytorch_utils import Conv1D

    if not is_faster_here():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            replace_product(module, lambda weight: weight)
        elif type(module) is Conv1D:
            replace_product(module, lambda weight: weight.T)


def replace_product(module: Any, outputs_first: Callable[[Tensor], Tensor]) -> None:
    """outputs_first: of its weight, a view [outputs, inputs]."""
    plain = type(module).forward

    def forward(self: Any, x: Tensor) -> Tensor:
        if not _is_plain(x) or not _is_plain(self.weight):
            return plain(self, x)
        weight = outputs_first(self.weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, "none", [], "")

    module.forward = MethodType(forward, module)


def _is_plain(tensor: Tensor) -> bool:
    wants_gradient = tensor.requires_grad and torch.is_grad_enabled()
    on_cpu = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    return on_cpu and not wants_gradient and tensor.dim() > 1 and tensor.numel() > 0
