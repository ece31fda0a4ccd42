"""The plan: what a manifest comes to on a machine, before anything is loaded. Data, no actions.

A pure function of the manifest, the model's shape and an inventory; frozen, and JSON by `to_dict`.
One topology exists: `fused`, in one process on one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtc_core.config import TranscoderSpec
from mtc_core.model.model_shape import ModelShape
from mtc_core.sites import Site
from orchestrator import costs
from orchestrator.costs import TranscoderCost
from orchestrator.inventory import Inventory
from orchestrator.manifest import Manifest, check_model, expand
from orchestrator.messages import Problem, raise_problems


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """A process that forwards and trains. `tensors` are captured once, however many read them."""

    name: str
    device: str
    transcoders: tuple[str, ...]
    tensors: tuple[str, ...]
    deepest: str
    blocks_run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPlan:
    """The shared forward against one forward per transcoder, in FLOPs per token."""

    blocks_run: int
    n_layers: int
    flops_per_token: int
    separate_flops_per_token: int
    train_flops_per_token: int

    @property
    def share(self) -> float:
        """Of all FLOPs of the suite, those of the forward."""
        return self.flops_per_token / (self.flops_per_token + self.train_flops_per_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePlan:
    """Steps and rows. `stored_rows` are the corpus's rows where they are known."""

    steps: int
    rows: int
    blocks: int
    block_rows: int
    stored_rows: int | None
    passes: float | None

    @property
    def reading(self) -> str:
        """How often the text is read, in words; empty while its length is unknown."""
        if self.passes is None:
            return ""
        times = (
            f"{self.passes:.1f} passes"
            if self.passes >= 1
            else f"part of one pass ({self.passes:.2f})"
        )
        return f"{times} over {self.stored_rows:,} rows of text"


@dataclass(frozen=True, slots=True)
class Part:
    """A share of memory or disk, and the manifest key that changes it."""

    what: str
    bytes: int
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that `run` will do, and what it takes."""

    name: str
    model: str
    topology: str
    why: str
    device: str
    threads: int
    transcoders: tuple[TranscoderPlan, ...]
    cells: tuple[CellPlan, ...]
    forward: ForwardPlan
    schedule: SchedulePlan
    memory: tuple[Part, ...]
    disk: tuple[Part, ...]
    notes: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        return sum(part.bytes for part in self.memory)

    @property
    def disk_bytes(self) -> int:
        return sum(part.bytes for part in self.disk)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the derived totals."""
        plain = asdict(self)
        plain["forward"]["share"] = self.forward.share
        plain["memory_bytes"], plain["disk_bytes"] = self.memory_bytes, self.disk_bytes
        return plain


def make_plan(
    manifest: Manifest,
    shape: ModelShape,
    inventory: Inventory,
    stored_rows: int | None = None,
    text_bytes: int | None = None,
) -> Plan:
    """Plan a manifest. stored_rows: rows of the training text, once it has been read to its end.
    text_bytes: bytes of that text, where they are known: it has no more tokens than these.

    Raises ManifestError for what the model or the machine cannot give."""
    check_model(manifest, shape)
    specs = expand(manifest, shape.n_layers)
    device = _device(manifest, inventory)
    transcoders = tuple(_transcoder(spec, manifest, shape) for spec in specs)
    cell = _cell(specs, device, shape)
    return Plan(
        name=manifest.name,
        model=manifest.model.name,
        topology="fused",
        why="one device: the forward and the training share a process, nothing is transported",
        device=device,
        threads=_threads(manifest, inventory),
        transcoders=transcoders,
        cells=(cell,),
        forward=_forward(manifest, shape, cell, transcoders),
        schedule=_schedule(manifest, stored_rows),
        memory=_memory(manifest, shape, specs, transcoders),
        disk=_disk(manifest, transcoders, stored_rows, text_bytes),
        notes=_notes(specs, shape, manifest, inventory),
    )


def _threads(manifest: Manifest, inventory: Inventory) -> int:
    threads = manifest.resources.threads
    return inventory.cores if threads == "auto" else threads


def _device(manifest: Manifest, inventory: Inventory) -> str:
    wanted = manifest.resources.device
    if wanted == "auto":
        return "cuda:0" if inventory.gpus else "cpu"
    if wanted == "cpu":
        return wanted
    index = int(wanted.partition(":")[2] or 0)
    if inventory.gpus is not None and index >= len(inventory.gpus):
        path = ("resources", "device")
        text = f'"{wanted}" is not here: this machine has {len(inventory.gpus)} GPUs; use auto'
        raise_problems([Problem(manifest.mark(path), path, text)])
    return f"cuda:{index}"


def _width(site: Site, shape: ModelShape) -> int:
    return shape.width(site) or shape.d_model


def _transcoder(spec: TranscoderSpec, manifest: Manifest, shape: ModelShape) -> TranscoderPlan:
    d_in, d_out = _width(spec.source, shape), _width(spec.target, shape)
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
    )


def _sites(specs: Sequence[TranscoderSpec]) -> list[Site]:
    """One site for each distinct tensor, in the order in which a forward reaches them."""
    sites = {site.tensor: site for spec in specs for site in (spec.source, spec.target)}
    return sorted(sites.values(), key=lambda site: (site.depth, site.hook))


def _cell(specs: Sequence[TranscoderSpec], device: str, shape: ModelShape) -> CellPlan:
    sites = _sites(specs)
    return CellPlan(
        name=f"trainer-0{_layer_range(specs)}",
        device=device,
        transcoders=tuple(spec.id for spec in specs),
        tensors=tuple(site.tensor for site in sites),
        deepest=str(sites[-1]),
        blocks_run=costs.blocks_run(sites, shape.n_layers),
    )


def _layer_range(specs: Sequence[TranscoderSpec]) -> str:
    layers = [s.layer for spec in specs for s in (spec.source, spec.target) if s.layer is not None]
    if not layers:
        return ""
    first, last = min(layers), max(layers)
    return f"[L{first:02d}-L{last:02d}]" if first < last else f"[L{first:02d}]"


def _forward(
    manifest: Manifest, shape: ModelShape, cell: CellPlan, transcoders: Sequence[TranscoderPlan]
) -> ForwardPlan:
    context = manifest.data.context_tokens
    return ForwardPlan(
        blocks_run=cell.blocks_run,
        n_layers=shape.n_layers,
        flops_per_token=costs.forward_flops(shape, cell.blocks_run, context),
        separate_flops_per_token=sum(t.forward_flops_per_token for t in transcoders),
        train_flops_per_token=sum(t.cost.flops_per_token for t in transcoders),
    )


def _schedule(manifest: Manifest, stored_rows: int | None) -> SchedulePlan:
    train = manifest.train.config()
    rows = train.steps * train.batch_tokens
    return SchedulePlan(
        steps=train.steps,
        rows=rows,
        blocks=-(-train.steps // train.block_batches),
        block_rows=train.block_rows,
        stored_rows=stored_rows,
        passes=rows / stored_rows if stored_rows else None,
    )


def _memory(
    manifest: Manifest,
    shape: ModelShape,
    specs: Sequence[TranscoderSpec],
    transcoders: Sequence[TranscoderPlan],
) -> tuple[Part, ...]:
    model, train = manifest.model, manifest.train.config()
    widths = [_width(site, shape) for site in _sites(specs)]
    forward = costs.forward_bytes(
        shape, model.dtype, model.forward_contexts, manifest.data.context_tokens
    )
    states = sum(t.cost.state_bytes for t in transcoders)
    return (
        Part("model weights", costs.model_bytes(shape, model.dtype), "model.dtype"),
        Part("forward pass", forward, "model.forward_contexts"),
        Part("block of activations", costs.block_bytes(widths, train), "train.block_batches"),
        Part("transcoders with Adam and gradients", states, "group_sizes"),
        Part("one step", max(t.cost.step_bytes for t in transcoders), "train.batch_tokens"),
        Part("Python and torch", costs.RUNTIME_BYTES, ""),
    )


def _disk(
    manifest: Manifest,
    transcoders: Sequence[TranscoderPlan],
    stored_rows: int | None,
    text_bytes: int | None,
) -> tuple[Part, ...]:
    # A pass over a finite corpus is stored once; while its size is unknown all may be new text.
    rows = manifest.train.tokens if stored_rows is None else stored_rows
    if text_bytes is not None:
        rows = min(rows, text_bytes)
    tokens = costs.STORED_TOKEN_BYTES * costs.stored_tokens(manifest.data.config(), rows)
    # While one more is written, those that it replaces are still there.
    copies = manifest.resources.checkpoint_keep + 1
    checkpoints = copies * sum(t.cost.checkpoint_bytes for t in transcoders)
    return (
        Part("tokens", tokens, "train.tokens"),
        Part("checkpoints", checkpoints, "resources.checkpoint_keep"),
        Part("final weights", sum(t.cost.final_bytes for t in transcoders), "group_sizes"),
    )


def _notes(
    specs: Sequence[TranscoderSpec], shape: ModelShape, manifest: Manifest, inventory: Inventory
) -> tuple[str, ...]:
    notes = [
        f"{site}: its width is known once the model is loaded; planned as {shape.d_model}"
        for site in _sites(specs)
        if shape.width(site) is None
    ]
    if inventory.gpus is None and manifest.resources.device != "cpu":
        notes.append("GPUs were not looked for; `run` looks")
    unused = manifest.train.tokens % manifest.train.batch_tokens
    if unused:
        notes.append(f"train.tokens: the last {unused} are less than a step and are not trained")
    return tuple(notes)
