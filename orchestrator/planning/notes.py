"""What of a plan asks for attention, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mtc_core.config import TranscoderSpec
from mtc_core.kernels.choose import resolve_kernels
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import is_local
from mtc_core.tokens.data_config import BYTES_PER_TOKEN
from orchestrator.manifest import Manifest
from orchestrator.planning import costs
from orchestrator.planning.cell_plan import CellPlan, TranscoderPlan, distinct_sites, plan_cells
from orchestrator.planning.inventory import Inventory
from orchestrator.planning.layout import Layout

FEW_STEPS = 200
MANY_PASSES = 20
ALIKE = 1.02  # as fast, within this


def site_notes(
    specs: Sequence[TranscoderSpec], shape: ModelShape, manifest: Manifest, inventory: Inventory
) -> Iterator[str]:
    for site in distinct_sites(specs):
        if shape.width(site) is None:
            yield f"{site}: its width is known once the model is loaded; planned as {shape.d_model}"
    if inventory.gpus is None and manifest.resources.device != "cpu":
        yield "GPUs were not looked for (`run` looks); --gpu-memory plans for some elsewhere"


def training_notes(
    manifest: Manifest, stored_rows: int | None, text_bytes: int | None
) -> Iterator[str]:
    """What of the training is likely not meant."""
    train = manifest.train.config()
    if train.steps < FEW_STEPS:
        yield (
            f"only {train.steps} steps of {train.batch_tokens:,} rows: lower train.batch_tokens, "
            "or raise train.tokens"
        )
    unused = train.tokens - train.steps * train.batch_tokens
    if unused > train.tokens // 100:
        yield f"train.tokens: the last {unused:,} are less than a step and are not trained"
    if stored_rows is None and text_bytes is not None:
        passes = train.tokens * BYTES_PER_TOKEN / text_bytes
        if passes >= MANY_PASSES:
            yield (
                f"about {passes:,.0f} passes over a text of {text_bytes:,} bytes (at "
                f"{BYTES_PER_TOKEN} bytes a token): give more text, or lower train.tokens"
            )


def trust_notes(manifest: Manifest) -> Iterator[str]:
    """What may do more than the manifest says."""
    model = manifest.model
    if model.trust_remote_code:
        pin = "" if is_local(model.name) else ", and pin model.revision to the commit that you read"
        yield (
            f"model.trust_remote_code: Python code that comes with {model.name} runs in every "
            f"process that loads it, and may do all that you may; read it before{pin}"
        )


def kernel_notes(manifest: Manifest, layout: Layout) -> Iterator[str]:
    """Where steps use other kernels than the manifest names: a run goes on where it can."""
    wanted = manifest.train.config().kernels
    devices = {cell.device for cell in layout.cells}
    if wanted == "triton" and devices == {"cpu"}:
        yield f"train.kernels: triton is for GPUs; steps on the CPU use {resolve_kernels(None)}"


def loading_notes(
    manifest: Manifest, layout: Layout, shape: ModelShape, inventory: Inventory
) -> Iterator[str]:
    """What models take of the machine before they go to GPUs. No more than a note: of files that
    have model.dtype already the weights are mapped, and take no memory that is not given back."""
    loaders = [one for one in layout.producers or layout.cells if one.device != "cpu"]
    free = inventory.memory_bytes
    if not loaders or free is None or inventory.node_cpus:  # of a cluster it is Ray's own count
        return
    copies = len(loaders) if inventory.driver_bytes else 1  # in one process they take turns
    needed = copies * costs.model_bytes(shape, manifest.model.dtype)
    if needed > free:
        fewer = "resources.producers" if layout.producers else "resources.cells"
        yield (
            f"models are loaded on the CPU before they go to GPUs: {needed / 1e9:.1f} GB for "
            f"{copies} at once, and {free / 1e9:.1f} GB are free; that is too little unless their "
            f"files have {manifest.model.dtype} already: lower {fewer}, or change model.dtype"
        )


def gpu_notes(
    specs: Sequence[TranscoderSpec],
    transcoders: Sequence[TranscoderPlan],
    layout: Layout,
    manifest: Manifest,
    shape: ModelShape,
    inventory: Inventory,
) -> Iterator[str]:
    """What so many GPUs are worth where each cell forwards by itself, by FLOPs alone: the largest
    cell sets the pace."""
    cells, devices = layout.cells, layout.placement.cells
    if len(cells) == 1 or layout.topology != "fused" or devices[0] == "cpu":
        return
    rooms = [inventory.free_bytes(device) for device in devices]

    def planned(count: int) -> tuple[CellPlan, ...]:
        return plan_cells(specs, transcoders, devices[:count], manifest, shape, rooms[:count])

    def does(count: int) -> bool:
        """Whether so many would hold it, and be as fast."""
        cells = planned(count)
        fits = all(
            room is None or cell.memory_bytes <= room
            for room, cell in zip(rooms[:count], cells, strict=True)
        )
        return fits and max(cell.flops_per_token for cell in cells) <= ALIKE * here

    here = max(cell.flops_per_token for cell in cells)
    alone = planned(1)[0].flops_per_token
    yield f"{len(cells)} GPUs are at best {alone / here:.1f} x as fast as one (by FLOPs)"
    if not does(len(cells)):
        return  # it does not fit in the first place
    low, high = 1, len(cells)
    while low < high:
        middle = (low + high) // 2
        if does(middle):
            high = middle
        else:
            low = middle + 1
    if low < len(cells):
        yield f"{low} GPUs would be as fast: what is left is the forward to the deepest site"
