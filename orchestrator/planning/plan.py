"""The plan: what a manifest comes to on a machine, before anything is loaded. Data, no actions.

A pure function of the manifest, the model's shape and an inventory; frozen, and JSON by `to_dict`.
One topology exists: `fused`, one or several cells that each forward and train a part of the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtc_core.config import TranscoderSpec
from mtc_core.model.model_shape import ModelShape
from mtc_core.tokens.data_config import BYTES_PER_TOKEN
from orchestrator.manifest import Manifest, check_model, expand
from orchestrator.planning import costs
from orchestrator.planning.cell_plan import (
    CellPlan,
    Part,
    TranscoderPlan,
    distinct_sites,
    plan_cells,
    plan_transcoder,
    together,
)
from orchestrator.planning.inventory import Gpu, Inventory, least_free
from orchestrator.planning.placement import device_names, place

FEW_STEPS = 200
MANY_PASSES = 20
ALIKE = 1.02  # as fast, within this


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPlan:
    """The forwards of all cells, one each, against one forward per transcoder: FLOPs per token.
    `blocks_run` are those of the deepest cell."""

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

    device: where, in words: `cpu`, `cuda:0`, or `cuda:0-3` for a GPU per cell. threads None: as
    many as the machine has cores, which nobody knows yet. memory: of all cells
    where they share the machine's; on GPUs that of the fullest. memory_device says which it is."""

    name: str
    model: str
    topology: str
    why: str
    device: str
    threads: int | None
    transcoders: tuple[TranscoderPlan, ...]
    cells: tuple[CellPlan, ...]
    forward: ForwardPlan
    schedule: SchedulePlan
    memory: tuple[Part, ...]
    memory_device: str
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
        for transcoder, plain_transcoder in zip(
            self.transcoders, plain["transcoders"], strict=True
        ):
            plain_transcoder["expansion"] = transcoder.expansion
        for cell, plain_cell in zip(self.cells, plain["cells"], strict=True):
            plain_cell["flops_per_token"] = cell.flops_per_token
            plain_cell["memory_bytes"] = cell.memory_bytes
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
    placement = place(manifest, inventory, len(specs))
    transcoders = tuple(plan_transcoder(spec, manifest, shape) for spec in specs)
    room = least_free(_gpus_of(placement.devices, inventory))
    cells = plan_cells(specs, transcoders, placement.devices, manifest, shape, room)
    on_cpu = cells[0].device == "cpu"
    fullest = max(cells, key=lambda cell: cell.memory_bytes)
    return Plan(
        name=manifest.name,
        model=manifest.model.name,
        topology="fused",
        why=_why(cells),
        device=device_names(placement.devices, inventory.node_gpus),
        threads=placement.threads,
        transcoders=transcoders,
        cells=cells,
        forward=_forward(shape, cells, transcoders),
        schedule=_schedule(manifest, stored_rows),
        memory=together(cells, inventory.driver_bytes) if on_cpu else fullest.memory,
        memory_device=fullest.device,
        disk=_disk(manifest, transcoders, stored_rows, text_bytes),
        notes=(
            *_notes(specs, shape, manifest, inventory),
            *_training_notes(manifest, stored_rows, text_bytes),
            *_gpu_notes(specs, transcoders, cells, manifest, shape, room),
            *placement.notes,
        ),
    )


def _gpus_of(devices: Sequence[str], inventory: Inventory) -> list[Gpu]:
    """The GPUs behind devices, as far as somebody has looked for any."""
    indices = [int(device.partition(":")[2]) for device in devices if device != "cpu"]
    return [inventory.gpus[index] for index in indices] if inventory.gpus else []


def _why(cells: Sequence[CellPlan]) -> str:
    if len(cells) == 1:
        return "one device: the forward and the training share a process, nothing is transported"
    kind = "processes" if cells[0].device == "cpu" else "GPUs"
    what = "each forwarding and training its part of the layers: nothing is transported"
    return f"{len(cells)} {kind}, {what}"


def _forward(
    shape: ModelShape, cells: Sequence[CellPlan], transcoders: Sequence[TranscoderPlan]
) -> ForwardPlan:
    return ForwardPlan(
        blocks_run=max(cell.blocks_run for cell in cells),
        n_layers=shape.n_layers,
        flops_per_token=sum(cell.forward_flops_per_token for cell in cells),
        separate_flops_per_token=sum(t.forward_flops_per_token for t in transcoders),
        train_flops_per_token=sum(cell.train_flops_per_token for cell in cells),
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


def _notes(
    specs: Sequence[TranscoderSpec], shape: ModelShape, manifest: Manifest, inventory: Inventory
) -> Iterator[str]:
    for site in distinct_sites(specs):
        if shape.width(site) is None:
            yield f"{site}: its width is known once the model is loaded; planned as {shape.d_model}"
    if inventory.gpus is None and manifest.resources.device != "cpu":
        yield "GPUs were not looked for (`run` looks); --gpu-memory plans for some elsewhere"


def _training_notes(
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


def _gpu_notes(
    specs: Sequence[TranscoderSpec],
    transcoders: Sequence[TranscoderPlan],
    cells: Sequence[CellPlan],
    manifest: Manifest,
    shape: ModelShape,
    room: int | None,
) -> Iterator[str]:
    """What so many GPUs are worth, by FLOPs alone: the largest cell sets the pace."""
    if len(cells) == 1 or cells[0].device == "cpu":
        return

    def planned(count: int) -> tuple[CellPlan, ...]:
        return plan_cells(specs, transcoders, ["cuda:0"] * count, manifest, shape, room)

    def does(count: int) -> bool:
        """Whether so many would hold it, and be as fast."""
        cells = planned(count)
        fits = room is None or max(cell.memory_bytes for cell in cells) <= room
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
