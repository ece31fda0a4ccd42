"""Activations of a language model at chosen sites, from one truncated forward pass."""

from mtc_core.capture.forward import Capture, ForwardCounts
from mtc_core.capture.provider import make_capture, resolve_provider

__all__ = ["Capture", "ForwardCounts", "make_capture", "resolve_provider"]
