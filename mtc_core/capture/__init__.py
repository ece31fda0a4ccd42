"""Activations of a language model at chosen sites, from one truncated forward pass."""

from mtc_core.capture.provider import Capture, ForwardCounts, make_capture, resolve_provider

__all__ = ["Capture", "ForwardCounts", "make_capture", "resolve_provider"]
