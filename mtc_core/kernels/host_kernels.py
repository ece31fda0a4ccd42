"""What those kernels share whose steps ask the device for sizes.

B rows · I source width
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtc_core.config import Extreme, TranscoderSpec
from mtc_core.learner import Learner
from mtc_core.onednn import Linear
from mtc_core.pre_activations import Addmm, PreActivations, pre_activations
from mtc_core.ridge import Inner, inner
from mtc_core.selection import Searching, keep_largest
from mtc_core.selector import HostSelector, Selector


class HostKernels(Searching):
    """half: pre-activations are computed in bfloat16."""

    waits = True
    addmm: Addmm = staticmethod(torch.addmm)  # of the encoder in float32
    inner: Inner = staticmethod(inner)
    linear: Linear = staticmethod(torch.nn.functional.linear)
    keep_largest = staticmethod(keep_largest)

    def __init__(self, half: bool = False) -> None:
        self.half = half

    def selector(self, spec: TranscoderSpec, extreme: Extreme, device: torch.device) -> Selector:
        return HostSelector(spec, extreme, self)

    def pre_activations(self, learner: Learner, x_BI: Tensor, cut: float) -> PreActivations:
        return pre_activations(learner.weights, x_BI, self.half, learner.workspace, self.addmm)
