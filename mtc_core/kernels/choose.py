"""Which kernels a step uses: the plan asks this without torch."""

from __future__ import annotations

import os
from importlib.util import find_spec

from mtc_core.config import Kernels
from mtc_core.errors import ConfigError


def resolve_kernels(wanted: Kernels | None, device: str = "cpu") -> Kernels:
    """What steps on a device (`cpu`, `cuda`, `cuda:1`) use. Raises ConfigError.

    None goes by what is installed and, on a GPU, is torch's: Triton's have not been measured on one
    yet. A run whose CPU took numba's goes on with torch's where it moves to a GPU."""
    on_cpu = device == "cpu"
    if wanted == "triton":
        # Its interpreter runs on CPUs: for tests, a thousand times slower.
        if on_cpu and os.environ.get("TRITON_INTERPRET") != "1":
            raise ConfigError(
                "train.kernels: triton needs a CUDA device, and this transcoder trains on the CPU; "
                "set train.kernels: auto, or resources.device: cuda"
            )
        if find_spec("triton") is None:
            raise ConfigError(
                "train.kernels: triton is not installed here; torch for CUDA on Linux brings it "
                "along, and train.kernels: torch needs none"
            )
        return "triton"
    installed = find_spec("numba") is not None
    if wanted == "numba" and on_cpu and not installed:
        raise ConfigError(
            "train.kernels: numba is not installed here: pip install numba (a run keeps the "
            "kernels that it began with; a new one takes torch's with train.kernels: torch)"
        )
    return "numba" if on_cpu and installed and wanted != "torch" else "torch"
