"""Matryoshka transcoders: train, save, load and measure them. Needs torch alone to train.

Names load on first use, so that sites and configuration are usable without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtc_core.config import TrainConfig, TranscoderSpec
    from mtc_core.fitting import fit
    from mtc_core.guidelines import suggest_group_sizes, suggest_k
    from mtc_core.rows import activation_rows
    from mtc_core.sites import Site
    from mtc_core.suite import load_suite
    from mtc_core.transcoder import MatryoshkaTranscoder

_HOME = {
    "MatryoshkaTranscoder": "transcoder",
    "load_suite": "suite",
    "fit": "fitting",
    "TranscoderSpec": "config",
    "TrainConfig": "config",
    "Site": "sites",
    "activation_rows": "rows",
    "suggest_group_sizes": "guidelines",
    "suggest_k": "guidelines",
}
__all__ = [
    "MatryoshkaTranscoder",
    "Site",
    "TrainConfig",
    "TranscoderSpec",
    "activation_rows",
    "fit",
    "load_suite",
    "suggest_group_sizes",
    "suggest_k",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"mtc_core.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mtc_core' has no attribute {name!r}")
