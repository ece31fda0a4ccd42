"""Which kernels a step uses: the plan asks this without torch."""

from __future__ import annotations

import os
from importlib.util import find_spec

from mtc_core.config import Kernels
from mtc_core.errors import ConfigError


def resolve_kernels(wanted: Kernels | None, device: str = "cpu") -> Kernels:
    """What steps on a device (`cpu`, `cuda`, `cuda:1`) use. Raises ConfigError.

    None is `numba` on a CPU, where it is installed, and `torch` on a GPU: Triton's have not been
    measured on one yet. What was wanted for the other kind of device counts as None, for a run goes
    on where it can."""
    if device != "cpu":
        return "triton" if wanted == "triton" else "torch"
    if wanted == "triton" and os.environ.get("TRITON_INTERPRET") == "1":
        return "triton"  # for tests: its interpreter is a thousand times slower
    installed = find_spec("numba") is not None
    if wanted == "numba" and not installed:
        raise ConfigError(
            "train.kernels: numba is not installed here: pip install numba (a run keeps the "
            "kernels that it began with; a new one takes torch's with train.kernels: torch)"
        )
    return "numba" if installed and wanted != "torch" else "torch"


def pinned_kernels(wanted: Kernels | None) -> Kernels:
    """What a run begins with and keeps, wherever it goes on; of `triton` a CPU makes `numba`."""
    return wanted if wanted == "triton" else resolve_kernels(wanted)
