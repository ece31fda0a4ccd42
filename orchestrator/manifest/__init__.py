"""Manifests: YAML text to a checked, frozen value, and to the transcoders that it asks for."""

from orchestrator.manifest.checks import check_model
from orchestrator.manifest.expand import expand
from orchestrator.manifest.load import load_manifest, needed_shape, unchecked
from orchestrator.manifest.schema import Manifest

__all__ = ["Manifest", "check_model", "expand", "load_manifest", "needed_shape", "unchecked"]
