"""What one transcoder and one cell come to. A cell is a process that forwards and trains one
contiguous part of the layers, with its own copy of the model and its own block of activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mtc_core.capture.choose import is_eager, resolve_provider
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.kernels.choose import resolve_kernels
from mtc_core.model.model_shape import ModelShape
from mtc_core.sites import Site
from orchestrator.manifest import Manifest, contexts_of
from orchestrator.planning import costs
from orchestrator.planning.costs import TranscoderCost
from orchestrator.planning.cut import cut
from orchestrator.planning.parts import FORWARD, MODEL, RUNTIME, STATES, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscoderPlan:
    """One transcoder. `forward_flops_per_token` is what training it alone would add."""

    id: str
    source: str
    target: str
    d_in: int
    d_out: int
    d_sae: int
    k: int
    cost: TranscoderCost
    forward_flops_per_token: int
    spec: dict[str, Any]  # of TranscoderSpec.to_dict

    @property
    def expansion(self) -> float:
        """Latents for each dimension of the source."""
        return self.d_sae / self.d_in


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """A process that trains on one device (`cpu`, `cuda:0`). `transcoders` are ids, the shallowest
    first; `tensors` are captured once, however many read them; `memory` is what it needs by itself.
    blocks_run and forward_flops_per_token are 0 where producers run the model. gpu_share: of its
    GPU; 0 on a CPU."""

    name: str
    device: str
    transcoders: tuple[str, ...]
    tensors: tuple[str, ...]
    deepest: str
    blocks_run: int
    forward_flops_per_token: int
    train_flops_per_token: int
    gpu_share: float
    memory: tuple[Part, ...]

    @property
    def flops_per_token(self) -> int:
        return self.forward_flops_per_token + self.train_flops_per_token

    @property
    def memory_bytes(self) -> int:
        return sum(part.bytes for part in self.memory)


def plan_transcoder(spec: TranscoderSpec, manifest: Manifest, shape: ModelShape) -> TranscoderPlan:
    """A transcoder by itself."""
    d_in, d_out = width_of(spec.source, shape), width_of(spec.target, shape)
    blocks = costs.blocks_run((spec.source, spec.target), shape.n_layers)
    context = manifest.data.context_tokens
    return TranscoderPlan(
        id=spec.id,
        source=str(spec.source),
        target=str(spec.target),
        d_in=d_in,
        d_out=d_out,
        d_sae=spec.d_sae,
        k=spec.k,
        cost=costs.transcoder_cost(spec, d_in, d_out, manifest.train.batch_tokens),
        forward_flops_per_token=costs.forward_flops(shape, blocks, context),
        spec=spec.to_dict(),
    )


def plan_cells(
    specs: Sequence[TranscoderSpec],
    transcoders: Sequence[TranscoderPlan],
    devices: Sequence[str],
    manifest: Manifest,
    shape: ModelShape,
    rooms: Sequence[int | None] = (),
) -> tuple[CellPlan, ...]:
    """One cell for each device. The transcoders, each of which belongs to the spec in its place,
    are cut by depth so that the cell with the most FLOPs per token has as few as possible, as far
    as none then needs more than the free bytes of its device: `rooms`, where they are known."""
    pairs = sorted(zip(specs, transcoders, strict=True), key=lambda pair: depth_of(pair[0]))
    forward = forward_part(distinct_sites(specs), manifest, shape)
    shared = shared_bytes(transcoders, devices[0], manifest, shape)
    parts = cut(
        [transcoder.cost.flops_per_token for _, transcoder in pairs],
        [transcoder.forward_flops_per_token for _, transcoder in pairs],
        len(devices),
        [own_bytes(transcoder, manifest) for _, transcoder in pairs],
        [None if room is None else room - shared for room in rooms],
    )
    return tuple(
        _cell(index, device, pairs[part.start : part.stop], manifest, shape, forward)
        for index, (device, part) in enumerate(zip(devices, parts, strict=True))
    )


def depth_of(spec: TranscoderSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sorts transcoders by how far a forward has to run for them."""
    return max(spec.source.depth, spec.target.depth), spec.source.depth


def own_bytes(transcoder: TranscoderPlan, manifest: Manifest) -> int:
    """What a transcoder adds to the memory of a cell: at most, since others may read its sites."""
    widths = (transcoder.d_in, transcoder.d_out)
    return transcoder.cost.state_bytes + costs.block_bytes(widths, manifest.train.config())


def shared_bytes(
    transcoders: Sequence[TranscoderPlan], device: str, manifest: Manifest, shape: ModelShape
) -> int:
    """What every cell on such a device needs, whatever it trains."""
    sites = [Site.parse(text) for text in {s for t in transcoders for s in (t.source, t.target)}]
    forward = forward_part(sites, manifest, shape)
    parts = _memory([], transcoders, device, manifest, shape, forward)
    return sum(part.bytes for part in parts if part.what != STATES)


def distinct_sites(specs: Iterable[TranscoderSpec]) -> list[Site]:
    """One site for each distinct tensor, in the order in which a forward reaches them."""
    sites = {site.tensor: site for spec in specs for site in (spec.source, spec.target)}
    return sorted(sites.values(), key=lambda site: (site.depth, site.hook))


def _cell(
    index: int,
    device: str,
    pairs: Sequence[tuple[TranscoderSpec, TranscoderPlan]],
    manifest: Manifest,
    shape: ModelShape,
    forward: Part,
) -> CellPlan:
    specs, transcoders = zip(*pairs, strict=True)
    sites = distinct_sites(specs)
    blocks = costs.blocks_run(sites, shape.n_layers)
    return CellPlan(
        name=f"trainer-{index}{layer_range(specs)}",
        device=device,
        transcoders=tuple(transcoder.id for transcoder in transcoders),
        tensors=tuple(site.tensor for site in sites),
        deepest=str(sites[-1]),
        blocks_run=blocks,
        forward_flops_per_token=costs.forward_flops(shape, blocks, manifest.data.context_tokens),
        train_flops_per_token=sum(t.cost.flops_per_token for t in transcoders),
        gpu_share=float(device != "cpu"),
        memory=_memory(
            [width_of(site, shape) for site in sites],
            transcoders,
            device,
            manifest,
            shape,
            forward,
        ),
    )


def _memory(
    widths: Sequence[int],
    transcoders: Sequence[TranscoderPlan],
    device: str,
    manifest: Manifest,
    shape: ModelShape,
    forward: Part,
) -> tuple[Part, ...]:
    train = manifest.train.config()
    states = sum(t.cost.state_bytes for t in transcoders)
    return (
        model_part(shape, manifest.model.dtype),
        forward,
        Part("block of activations", costs.block_bytes(widths, train), "train.block_batches"),
        Part(STATES, states, "group_sizes"),
        Part("one step", max(t.cost.step_bytes for t in transcoders), "train.batch_tokens"),
        Part(RUNTIME, costs.RUNTIME_BYTES, ""),
        *([Part("freed tensors that are kept", costs.KEPT_BYTES, "")] * (device == "cpu")),
        *kernel_memory(transcoders, device, train),
    )


def model_part(shape: ModelShape, dtype: str) -> Part:
    """Weights of the whole model. Nothing is smaller than two bytes for each."""
    key = "model.dtype" if dtype == "float32" else ""
    return Part(MODEL, costs.model_bytes(shape, dtype), key)


def forward_part(sites: Iterable[Site], manifest: Manifest, shape: ModelShape) -> Part:
    """What a forward holds at once. sites: of the whole run, since one of them that needs another
    provider has all processes use that."""
    model, context = manifest.model, manifest.data.context_tokens
    eager = is_eager(shape, resolve_provider(shape, sites, model.provider))
    held = costs.forward_bytes(shape, model.dtype, contexts_of(manifest), context, eager)
    return Part(FORWARD, held, "model.forward_contexts")


def kernel_memory(
    transcoders: Sequence[TranscoderPlan], device: str, train: TrainConfig
) -> tuple[Part, ...]:
    """Of what computes the steps on a device."""
    match resolve_kernels(train.kernels, device):
        case "numba":
            return (Part("compiled loops", costs.LOOPS_BYTES, "train.kernels"),)
        case "triton":
            largest = max(
                costs.triton_bytes(t.k, t.d_in, t.d_out, t.cost.params, train.batch_tokens)
                for t in transcoders
            )
            return (Part("slots and sums of a step", largest, "train.kernels"),)
    return ()


def layer_range(specs: Sequence[TranscoderSpec]) -> str:
    """`[L00-L05]`, for the name of a cell; nothing for sites without a layer."""
    layers = [s.layer for spec in specs for s in (spec.source, spec.target) if s.layer is not None]
    if not layers:
        return ""
    first, last = min(layers), max(layers)
    return f"[L{first:02d}-L{last:02d}]" if first < last else f"[L{first:02d}]"


def width_of(site: Site, shape: ModelShape) -> int:
    """Of a site; where only the loaded model would tell, that of the stream."""
    return shape.width(site) or shape.d_model
