"""The plan: what a manifest comes to on a machine, before anything is loaded. Data, no actions.

A pure function of the manifest, the model's shape and an inventory; frozen, and JSON by `to_dict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtc_core.model.model_shape import ModelShape
from orchestrator.manifest import Manifest, check_model, contexts_of, expand, with_contexts
from orchestrator.planning import costs
from orchestrator.planning.cell_plan import CellPlan, TranscoderPlan, plan_transcoder
from orchestrator.planning.choose import choose_layout
from orchestrator.planning.inventory import Inventory
from orchestrator.planning.kernel_plan import kernels_of, products_of
from orchestrator.planning.layout import Layout
from orchestrator.planning.notes import (
    gpu_notes,
    kernel_notes,
    loading_notes,
    site_notes,
    training_notes,
    trust_notes,
)
from orchestrator.planning.parts import Part
from orchestrator.planning.placement import Topology, device_names, gpus_for
from orchestrator.planning.predict import Prediction
from orchestrator.planning.split_plan import ExchangePlan, ProducerPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPlan:
    """The forwards of the suite, of every cell or of producers, against one for each transcoder:
    FLOPs per token. `blocks_run` are those of the deepest. contexts: of one pass."""

    contexts: int
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that `run` will do, and what it takes.

    device: where, in words: `cpu`, `cuda:0`, or `cuda:0-3`. threads None: as many as the machine
    has cores, which nobody knows yet. kernels: what computes the steps. products: which of them are
    not left to torch. memories: by device, what all processes on it need. memory_device: the
    fullest. producers and exchange: where the topology is split. predicted: of the best layout of
    each topology that there is room for."""

    name: str
    model: str
    topology: Topology
    why: str
    device: str
    threads: int | None
    kernels: str
    products: tuple[str, ...]
    transcoders: tuple[TranscoderPlan, ...]
    cells: tuple[CellPlan, ...]
    producers: tuple[ProducerPlan, ...]
    exchange: ExchangePlan | None
    predicted: dict[Topology, Prediction]
    forward: ForwardPlan
    schedule: SchedulePlan
    memories: dict[str, tuple[Part, ...]]
    memory_device: str
    disk: tuple[Part, ...]
    notes: tuple[str, ...]

    @property
    def memory(self) -> tuple[Part, ...]:
        """Of the fullest device."""
        return self.memories[self.memory_device]

    @property
    def memory_bytes(self) -> int:
        return _size(self.memory)

    @property
    def disk_bytes(self) -> int:
        return _size(self.disk)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the derived totals."""
        plain = asdict(self)
        plain["forward"]["share"] = self.forward.share
        plain["memory"] = [asdict(part) for part in self.memory]
        plain["memory_bytes"], plain["disk_bytes"] = self.memory_bytes, self.disk_bytes
        for transcoder, plain_transcoder in zip(
            self.transcoders, plain["transcoders"], strict=True
        ):
            plain_transcoder["expansion"] = transcoder.expansion
            plain_transcoder["cost"]["flops_per_token"] = transcoder.cost.flops_per_token
        for cell, plain_cell in zip(self.cells, plain["cells"], strict=True):
            plain_cell["flops_per_token"] = cell.flops_per_token
            plain_cell["memory_bytes"] = cell.memory_bytes
        for producer, plain_producer in zip(self.producers, plain["producers"], strict=True):
            plain_producer["memory_bytes"] = producer.memory_bytes
        return plain


def settled(manifest: Manifest, inventory: Inventory) -> Manifest:
    """With what is left to the kind of device. Raises ManifestError for GPUs that are not there."""
    return with_contexts(manifest, gpus=bool(gpus_for(manifest, inventory)))


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
    manifest = settled(manifest, inventory)
    specs = expand(manifest, shape.n_layers)
    transcoders = tuple(plan_transcoder(spec, manifest, shape) for spec in specs)
    choice = choose_layout(specs, transcoders, manifest, shape, inventory)
    layout = choice.layout
    memories = layout.memories(inventory.driver_bytes)
    fullest = max(layout.placement.devices, key=lambda device: _size(memories[device]))
    return Plan(
        name=manifest.name,
        model=manifest.model.name,
        topology=layout.topology,
        why=layout.why,
        device=device_names(layout.placement.devices, inventory.node_gpus),
        threads=layout.placement.threads,
        kernels=kernels_of(manifest, layout),
        products=products_of(manifest, specs, layout, inventory.cpu),
        transcoders=transcoders,
        cells=layout.cells,
        producers=layout.producers,
        exchange=layout.exchange,
        predicted=dict(choice.predicted),
        forward=_forward(manifest, shape, layout, transcoders),
        schedule=_schedule(manifest, stored_rows),
        memories=memories,
        memory_device=fullest,
        disk=_disk(manifest, transcoders, stored_rows, text_bytes),
        notes=(
            *site_notes(specs, shape, manifest, inventory),
            *training_notes(manifest, stored_rows, text_bytes),
            *kernel_notes(manifest, layout),
            *trust_notes(manifest),
            *loading_notes(manifest, layout, shape, inventory),
            *gpu_notes(specs, transcoders, layout, manifest, shape, inventory),
            *layout.placement.notes,
        ),
    )


def _size(parts: Sequence[Part]) -> int:
    return sum(part.bytes for part in parts)


def _forward(
    manifest: Manifest, shape: ModelShape, layout: Layout, transcoders: Sequence[TranscoderPlan]
) -> ForwardPlan:
    forwards = [p.flops_per_token for p in layout.producers]
    forwards += [cell.forward_flops_per_token for cell in layout.cells]
    blocks = [producer.blocks_run for producer in layout.producers]
    return ForwardPlan(
        contexts=contexts_of(manifest),
        blocks_run=max([*blocks, *(cell.blocks_run for cell in layout.cells)]),
        n_layers=shape.n_layers,
        flops_per_token=sum(forwards),
        separate_flops_per_token=sum(t.forward_flops_per_token for t in transcoders),
        train_flops_per_token=sum(cell.train_flops_per_token for cell in layout.cells),
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
