"""Which kernels a step uses: the plan asks this without torch."""

from __future__ import annotations

from importlib.util import find_spec

from mtc_core.config import Kernels
from mtc_core.errors import ConfigError


def resolve_kernels(wanted: Kernels | None) -> Kernels:
    """What steps on a CPU use; None goes by what is installed. Raises ConfigError."""
    installed = find_spec("numba") is not None
    if wanted == "numba" and not installed:
        raise ConfigError(
            "train.kernels: numba is not installed here: pip install numba (a run keeps the "
            "kernels that it began with; a new one takes torch's with train.kernels: torch)"
        )
    return "numba" if installed and wanted != "torch" else "torch"
