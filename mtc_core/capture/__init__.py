"""Activations of a language model at chosen sites, from one truncated forward pass.

Names load on first use: which provider serves a site can be asked without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtc_core.capture.choose import resolve_provider
    from mtc_core.capture.forward import Capture, ForwardCounts
    from mtc_core.capture.provider import make_capture

_HOME = {
    "Capture": "forward",
    "ForwardCounts": "forward",
    "make_capture": "provider",
    "resolve_provider": "choose",
}
__all__ = ["Capture", "ForwardCounts", "make_capture", "resolve_provider"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"mtc_core.capture.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mtc_core.capture' has no attribute {name!r}")
