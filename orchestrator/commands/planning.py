"""What `plan` does: manifest, model's shape and hardware, here or elsewhere, to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtc_core.tokens.text import text_bytes_here
from orchestrator.manifest import Manifest, load_manifest, needed_shape, unchecked
from orchestrator.messages import ManifestError, Problem
from orchestrator.planning.inventory import (
    Inventory,
    gpus_elsewhere,
    gpus_here,
    take_inventory,
)
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.preflight import shortages
from orchestrator.planning.remedies import remedies


@dataclass(frozen=True, slots=True)
class Hardware:
    """Equal nodes with equal GPUs that somebody has in mind."""

    nodes: int
    node_gpus: int
    gpu_bytes: int | None

    @classmethod
    def of(cls, nodes: int | None, node_gpus: int | None, gpu_bytes: int | None) -> Hardware | None:
        """What the options say; None if they say nothing."""
        if nodes is None and node_gpus is None and gpu_bytes is None:
            return None
        return cls(nodes or 1, node_gpus or 1, gpu_bytes)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, what it was made for, what that lacks, and what would make it fit."""

    plan: Plan
    inventory: Inventory
    shortages: list[str]
    remedies: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**self.plan.to_dict(), "shortages": self.shortages, "remedies": self.remedies}


def plan_manifest(
    path: str, overrides: Sequence[str], root: Path, elsewhere: Hardware | None
) -> Planned:
    """Plan the manifest of a file. Raises MtcError."""
    manifest = load_manifest(path, overrides)
    shape = needed_shape(manifest)
    inventory = _imagined(manifest, elsewhere) if elsewhere else _here(manifest, root)
    text_bytes = text_bytes_here(manifest.data.config())
    plan = make_plan(manifest, shape, inventory, text_bytes=text_bytes)
    open_questions = tuple(f"not checked: {line}" for line in unchecked(manifest, shape))
    plan = replace(plan, notes=(*plan.notes, *open_questions))
    lacking = shortages(plan, inventory, root)
    ways = remedies(manifest, shape, inventory, plan) if lacking else []
    return Planned(plan, inventory, lacking, ways)


def _imagined(manifest: Manifest, hardware: Hardware) -> Inventory:
    if manifest.resources.device == "cpu":
        path = ("resources", "device")
        text = '"cpu" takes none of these GPUs; add --set resources.device=auto'
        raise ManifestError(str(Problem(manifest.mark(path), path, text)))
    return gpus_elsewhere(hardware.nodes, hardware.node_gpus, hardware.gpu_bytes)


def _here(manifest: Manifest, root: Path) -> Inventory:
    device = manifest.resources.device if gpus_here() else "cpu"  # else taken to be elsewhere
    return take_inventory(root, device)
