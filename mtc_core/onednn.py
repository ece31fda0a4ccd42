"""Matrix products in float32 by oneDNN, on CPUs for which torch has the slower library.

torch multiplies float32 by MKL, which on AMD's CPUs takes vectors of 256 bits at most. oneDNN,
which torch has, too, took 592 ms instead of 763 for a forward pass on a Zen 4, and 7 % less on a
Zen 3 (benchmarks/LOG.md).

B rows · I, O inner and outer width
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtc_core.cpu import this_cpu

ROWS = 512  # of a product at once: oneDNN has no `out`, and a copy is cheap while it is in cache
NARROW = 256  # of an inner width: below, the copy costs as much as is won

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # x Wᵀ + bias


def is_faster_here() -> bool:
    """Whether oneDNN's products are, on this CPU."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and this_cpu().prefers_onednn


def linear(x: Tensor, W_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """x Wᵀ + bias, of float32 tensors on a CPU that want no gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, W_OI, bias_O, "none", [], "")


def addmm(bias_O: Tensor, x_BI: Tensor, W_IO: Tensor, *, out: Tensor) -> Tensor:
    """As torch.addmm, to rounding, for a W_IO that is the transpose of a contiguous matrix. Bits of
    a row do not depend on threads, nor on the other rows, if there are two or more."""
    if x_BI.shape[1] < NARROW:
        return torch.addmm(bias_O, x_BI, W_IO, out=out)
    for x_RI, out_RO in zip(x_BI.split(ROWS), out.split(ROWS), strict=True):
        out_RO.copy_(linear(x_RI, W_IO.T, bias_O))
    return out


def inner(a_BI: Tensor, b_BO: Tensor) -> Tensor:
    """aᵀ b, to rounding. Bits do not depend on threads, if a has two columns or more."""
    return linear(a_BI.T.contiguous(), b_BO.T, None)
