"""Plans of the small sound manifest for GPT-2 small, on machines that are written down."""

from __future__ import annotations

from pathlib import Path

from mtc_core.model.model_shape import ModelShape
from orchestrator.manifest import load_manifest
from orchestrator.model_shapes import find_shape
from orchestrator.planning.inventory import Gpu, Inventory
from orchestrator.planning.plan import Plan, make_plan
from tests.orchestrator.manifests import write_manifest

ROOMY = Inventory(cores=4, memory_bytes=64 * 10**9, disk_bytes=10**12)
BLOCK_FLOPS = 2 * 7_077_888 + 4 * 128 * 768  # the matrices of a GPT-2 block, and its attention
TRAIN_FLOPS = 3_936_768  # of one transcoder of the sound manifest, worked out in test_plan.py


def gpt2() -> ModelShape:
    shape = find_shape("gpt2", "main", online=False)
    assert shape is not None
    return shape


def with_gpus(*free_bytes: int, cores: int = 4) -> Inventory:
    """A machine with GPUs of 80 GB, of which so much is free."""
    gpus = tuple(Gpu("H", 80 * 10**9, free) for free in free_bytes)
    return Inventory(cores, 64 * 10**9, 10**12, gpus)


def plan_of(
    tmp_path: Path,
    lines: dict[int, str] | None = None,
    inventory: Inventory = ROOMY,
    stored_rows: int | None = None,
    text_bytes: int | None = None,
) -> Plan:
    """The plan of the sound manifest with some lines replaced or added."""
    manifest = load_manifest(write_manifest(tmp_path, lines))
    return make_plan(manifest, gpt2(), inventory, stored_rows, text_bytes)
