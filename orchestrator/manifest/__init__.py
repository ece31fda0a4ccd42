"""Manifests: YAML text to a checked, frozen value, and to the transcoders that it asks for."""

from orchestrator.manifest.checks import check_model
from orchestrator.manifest.contexts import contexts_of, with_contexts
from orchestrator.manifest.expand import expand
from orchestrator.manifest.load import load_manifest, needed_shape, unchecked
from orchestrator.manifest.schema import Manifest

__all__ = [
    "Manifest", "check_model", "contexts_of", "expand", "load_manifest", "needed_shape",
    "unchecked", "with_contexts",
]  # fmt: skip
