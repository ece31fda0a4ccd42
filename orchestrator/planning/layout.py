"""Which processes there are, and on which devices, by either topology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtc_core.config import TranscoderSpec
from mtc_core.model.model_shape import ModelShape
from orchestrator.manifest import Manifest
from orchestrator.planning.cell_plan import CellPlan, TranscoderPlan, plan_cells
from orchestrator.planning.inventory import Inventory
from orchestrator.planning.parts import CELLS_KEY, PREFETCH_KEY, PRODUCERS_KEY, Part, together
from orchestrator.planning.placement import Placement, Topology, place
from orchestrator.planning.split_plan import ExchangePlan, ProducerPlan, plan_split


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Cells on devices, and producers with what lies between where the topology is split."""

    placement: Placement
    cells: tuple[CellPlan, ...]
    producers: tuple[ProducerPlan, ...] = ()
    exchange: ExchangePlan | None = None
    why: str

    @property
    def topology(self) -> Topology:
        return self.placement.topology

    def memories(self, driver_bytes: int) -> dict[str, tuple[Part, ...]]:
        """What every memory has to hold, by device. That of the machine is among them where
        something lies in it; driver_bytes are, only if cells do."""
        key = PRODUCERS_KEY if self.producers else CELLS_KEY
        on: dict[str, list[tuple[Part, ...]]] = {d: [] for d in self.placement.devices}
        processes: list[CellPlan | ProducerPlan] = [*self.producers, *self.cells]
        for process in processes:
            on[process.device].append(process.memory)
        found = {device: together(memories, key) for device, memories in on.items()}
        beside = []
        if self.exchange:
            beside += [Part("object store", self.exchange.store_bytes, PREFETCH_KEY)]
        if driver_bytes and "cpu" in found:
            beside += [Part("driver and Ray", driver_bytes, "")]
        if beside:
            found["cpu"] = (*found.get("cpu", ()), *beside)
        return found


def fits(
    memories: Mapping[str, Sequence[Part]], exchange: ExchangePlan | None, inventory: Inventory
) -> bool:
    """Whether every memory is large enough, as far as somebody has looked."""
    there = {device: inventory.memory_of(device) for device in memories}
    enough = [
        free is None or sum(part.bytes for part in memories[device]) <= free
        for device, free in there.items()
    ]
    shared = inventory.shared_bytes
    return all(enough) and (not exchange or shared is None or exchange.store_bytes <= shared)


def fused_layout(
    specs: Sequence[TranscoderSpec],
    transcoders: Sequence[TranscoderPlan],
    manifest: Manifest,
    shape: ModelShape,
    inventory: Inventory,
) -> Layout:
    """Cells that each run the model for themselves. Raises ManifestError where the machine does not
    have what the manifest asks for."""
    placement = place(manifest, inventory, len(specs), "fused")
    rooms = [inventory.free_bytes(device) for device in placement.cells]
    cells = plan_cells(specs, transcoders, placement.cells, manifest, shape, rooms)
    if len(cells) == 1:
        why = "one device: the forward and the training share a process, nothing is transported"
    else:
        kind = "processes" if cells[0].device == "cpu" else "GPUs"
        why = (
            f"{len(cells)} {kind}, each forwarding and training its part of the layers: nothing is "
            "transported"
        )
    return Layout(placement=placement, cells=cells, why=why)


def split_layout(
    specs: Sequence[TranscoderSpec],
    transcoders: Sequence[TranscoderPlan],
    manifest: Manifest,
    shape: ModelShape,
    inventory: Inventory,
) -> Layout:
    """Producers that run the model for all cells. Raises the same."""
    placement = place(manifest, inventory, len(specs), "split")
    free = {d: f for d in placement.devices if (f := inventory.free_bytes(d)) is not None}
    plan = plan_split(specs, transcoders, placement, manifest, shape, free)
    producers, cells = len(plan.producers), len(plan.cells)
    why = (
        f"{producers} producer{'s' * (producers > 1)} feeding {cells} cell{'s' * (cells > 1)}: "
        "each block of text is forwarded once"
    )
    return Layout(
        placement=placement,
        cells=plan.cells,
        producers=plan.producers,
        exchange=plan.exchange,
        why=why,
    )
