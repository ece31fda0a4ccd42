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
_TYPES = (Tensor, nn.Parameter)  # others, quantised ones, say that they are float32, too


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
    CPU and wants no gradient. Results differ from torch's own by rounding."""
    from transformers.pytorch_utils import Conv1D

    if not is_faster_here():
        return
    for module in model.modules():
        if "forward" in vars(module):  # somebody has put a wrapper around it
            continue
        if type(module) is nn.Linear:
            _replace(module, _linear)
        elif type(module) is Conv1D:
            _replace(module, _conv1d)


def _replace(module: Any, forward: Callable[[Any, Tensor], Tensor]) -> None:
    module.forward = MethodType(forward, module)


def _linear(self: Any, input: Tensor) -> Tensor:
    if not _is_for_it(self, input):
        return type(self).forward(self, input)
    return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")


def _conv1d(self: Any, x: Tensor) -> Tensor:
    if not _is_for_it(self, x):
        return type(self).forward(self, x)
    return torch.ops.mkldnn._linear_pointwise(x, self.weight.T, self.bias, "none", [], "")


def _is_for_it(module: Any, x: Tensor) -> bool:
    tensors = (x, module.weight, *(() if module.bias is None else (module.bias,)))
    if torch.is_autocast_enabled("cpu") or x.dim() < 2 or not x.numel():
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return all(type(tensor) in _TYPES and _is_float32(tensor) for tensor in tensors)


def _is_float32(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32
