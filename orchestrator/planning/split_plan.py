"""The split topology as data: producers that run the model, cells that only train, and the object
store between them.

A producer that shares a GPU with a cell does so by fractions, by the FLOPs of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtc_core.config import TranscoderSpec
from mtc_core.model.model_shape import ModelShape
from mtc_core.sites import Site
from orchestrator.manifest import Manifest, contexts_of
from orchestrator.planning import costs
from orchestrator.planning.cell_plan import (
    CellPlan,
    TranscoderPlan,
    depth_of,
    distinct_sites,
    forward_part,
    kernel_memory,
    layer_range,
    model_part,
    width_of,
)
from orchestrator.planning.cut import cut
from orchestrator.planning.parts import RUNTIME, STATES, Part
from orchestrator.planning.placement import Placement

STORE_SHARE = 0.8  # of an object store, beyond which Ray writes what is held to disk (2.60)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerPlan:
    """A process that runs the model over its share of the blocks. flops_per_token: of that share.
    gpu_share: of its GPU; 0 on a CPU."""

    name: str
    device: str
    tensors: tuple[str, ...]
    deepest: str
    blocks_run: int
    flops_per_token: int
    gpu_share: float
    memory: tuple[Part, ...]

    @property
    def memory_bytes(self) -> int:
        return sum(part.bytes for part in self.memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePlan:
    """What lies between: the steps that each producer holds ready, the rows that are published at
    once and their bytes, of every distinct tensor, and the bytes of the object store that hold all
    of it."""

    prefetch_steps: int
    portion_rows: int
    portion_bytes: int
    store_bytes: int


@dataclass(frozen=True, slots=True)
class SplitPlan:
    cells: tuple[CellPlan, ...]
    producers: tuple[ProducerPlan, ...]
    exchange: ExchangePlan


def plan_split(
    specs: Sequence[TranscoderSpec],
    transcoders: Sequence[TranscoderPlan],
    placement: Placement,
    manifest: Manifest,
    shape: ModelShape,
    free_bytes: dict[str, int] | None = None,
) -> SplitPlan:
    """Cells on their devices, as even in FLOPs as their memory allows, a producer's own counted.
    free_bytes: of each device, as far as somebody has looked."""
    sites = distinct_sites(specs)
    blocks = costs.blocks_run(sites, shape.n_layers)
    forward = costs.forward_flops(shape, blocks, manifest.data.context_tokens)
    on_each = forward // len(placement.producers)
    producing = _producer_memory(sites, placement.producers[0], manifest, shape)
    loads, rooms = [], []
    for device in placement.cells:
        here = _shared(device, placement)
        loads.append(on_each * here)
        free = (free_bytes or {}).get(device)
        beside = sum(part.bytes for part in producing) * here + _fixed_bytes(transcoders, manifest)
        rooms.append(None if free is None else free - beside)
    pairs = sorted(zip(specs, transcoders, strict=True), key=lambda pair: depth_of(pair[0]))
    parts = cut(
        [transcoder.cost.flops_per_token for _, transcoder in pairs],
        [0] * len(pairs),
        len(placement.cells),
        [_own_bytes(transcoder, manifest) for _, transcoder in pairs],
        rooms,
        loads,
    )
    cells = tuple(
        _cell(
            index,
            device,
            pairs[part.start : part.stop],
            manifest,
            shape,
            load if _shared(device, placement) else None,
        )
        for index, (device, part, load) in enumerate(
            zip(placement.cells, parts, loads, strict=True)
        )
    )
    taken = {cell.device: cell.gpu_share for cell in cells}
    producers = tuple(
        ProducerPlan(
            name=f"producer-{index}{_blocks(blocks)}",
            device=device,
            tensors=tuple(site.tensor for site in sites),
            deepest=str(sites[-1]),
            blocks_run=blocks,
            flops_per_token=on_each,
            gpu_share=0.0 if device == "cpu" else round(1.0 - taken.get(device, 0.0), 2),
            memory=producing,
        )
        for index, device in enumerate(placement.producers)
    )
    return SplitPlan(cells, producers, _exchange(sites, len(producers), manifest, shape))


def _blocks(count: int) -> str:
    """Those of the model that a producer holds, for its name: `[L00-L05]`."""
    if not count:
        return ""
    return f"[L00-L{count - 1:02d}]" if count > 1 else "[L00]"


def _shared(device: str, placement: Placement) -> bool:
    """Whether a cell's device is a GPU that has a producer, too."""
    return device != "cpu" and device in placement.producers


def _exchange(
    sites: Sequence[Site], producers: int, manifest: Manifest, shape: ModelShape
) -> ExchangePlan:
    resources, train = manifest.resources, manifest.train.config()
    steps = train.block_batches if resources.prefetch_steps == "auto" else resources.prefetch_steps
    steps = min(steps, train.steps)
    rows = max(train.batch_tokens, contexts_of(manifest) * manifest.data.context_tokens)
    portion = costs.FLOAT32_BYTES * rows * sum(width_of(site, shape) for site in sites)
    # A window for cells that are in step, one for such as lag, and what is being written.
    return ExchangePlan(
        prefetch_steps=steps,
        portion_rows=rows,
        portion_bytes=portion,
        store_bytes=int(producers * (2 * steps + 1) * portion / STORE_SHARE),
    )


def _cell(
    index: int,
    device: str,
    pairs: Sequence[tuple[TranscoderSpec, TranscoderPlan]],
    manifest: Manifest,
    shape: ModelShape,
    load: int | None,
) -> CellPlan:
    """load: FLOPs of the producer on the same GPU; None without one."""
    specs, transcoders = zip(*pairs, strict=True)
    sites = distinct_sites(specs)
    widths = [width_of(site, shape) for site in sites]
    train = sum(t.cost.flops_per_token for t in transcoders)
    share = 0.0 if device == "cpu" else 1.0
    if load is not None:
        share = min(0.95, max(0.05, round(train / (train + load), 2)))
    return CellPlan(
        name=f"trainer-{index}{layer_range(specs)}",
        device=device,
        transcoders=tuple(transcoder.id for transcoder in transcoders),
        tensors=tuple(site.tensor for site in sites),
        deepest=str(sites[-1]),
        blocks_run=0,
        forward_flops_per_token=0,
        train_flops_per_token=train,
        gpu_share=share,
        memory=_cell_memory(widths, transcoders, device, manifest),
    )


def _own_bytes(transcoder: TranscoderPlan, manifest: Manifest) -> int:
    widths = (transcoder.d_in, transcoder.d_out)
    return transcoder.cost.state_bytes + costs.block_bytes(widths, manifest.train.config())


def _fixed_bytes(transcoders: Sequence[TranscoderPlan], manifest: Manifest) -> int:
    """Of a cell on a GPU, whatever it trains."""
    kernels = kernel_memory(transcoders, "cuda", manifest.train.config())
    step = max(t.cost.step_bytes for t in transcoders) + sum(part.bytes for part in kernels)
    return costs.RUNTIME_BYTES + step


def _cell_memory(
    widths: Sequence[int],
    transcoders: Sequence[TranscoderPlan],
    device: str,
    manifest: Manifest,
) -> tuple[Part, ...]:
    train = manifest.train.config()
    return (
        Part("first block of activations", costs.block_bytes(widths, train), "train.block_batches"),
        Part(STATES, sum(t.cost.state_bytes for t in transcoders), "group_sizes"),
        Part("one step", max(t.cost.step_bytes for t in transcoders), "train.batch_tokens"),
        *_process(device),
        *kernel_memory(transcoders, device, train),
    )


def _producer_memory(
    sites: Sequence[Site], device: str, manifest: Manifest, shape: ModelShape
) -> tuple[Part, ...]:
    train = manifest.train.config()
    # The second one for cells that lag behind the others.
    blocks = 2 * costs.block_bytes([width_of(site, shape) for site in sites], train)
    return (
        model_part(shape, manifest.model.dtype),
        forward_part(sites, manifest, shape),
        Part("two blocks of activations", blocks, "train.block_batches"),
        *_process(device),
    )


def _process(device: str) -> tuple[Part, ...]:
    kept = Part("freed tensors that are kept", costs.KEPT_BYTES, "")
    return (Part(RUNTIME, costs.RUNTIME_BYTES, ""), *([kept] * (device == "cpu")))
