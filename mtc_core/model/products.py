"""The linear layers of a model in float32, by oneDNN where that is faster: mtc_core/onednn.py."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from mtc_core.onednn import is_faster_here, linear

_TYPES = (Tensor, nn.Parameter)  # others, quantised ones, say that they are float32, too


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
    return linear(input, self.weight, self.bias)


def _conv1d(self: Any, x: Tensor) -> Tensor:
    if not _is_for_it(self, x):
        return type(self).forward(self, x)
    return linear(x, self.weight.T, self.bias)


def _is_for_it(module: Any, x: Tensor) -> bool:
    tensors = (x, module.weight, *(() if module.bias is None else (module.bias,)))
    if torch.is_autocast_enabled("cpu") or x.dim() < 2 or not x.numel():
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return all(type(tensor) in _TYPES and _is_float32(tensor) for tensor in tensors)


def _is_float32(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32
