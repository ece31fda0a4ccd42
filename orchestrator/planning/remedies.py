"""What would make a plan fit that does not: each way has been planned, and fits.

More devices, runs one after another, larger devices, or the keys of the manifest that cost least to
change; where producers feed cells, fewer of them, or none. Memory alone: what fills a disk has its
own key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mtc_core.model.model_shape import ModelShape
from orchestrator.manifest import Manifest, expand
from orchestrator.manifest.contexts import CONTEXTS
from orchestrator.planning.cell_plan import (
    CellPlan,
    depth_of,
    own_bytes,
    plan_cells,
    plan_transcoder,
    shared_bytes,
)
from orchestrator.planning.cut import fewest_parts
from orchestrator.planning.inventory import Inventory, least_free
from orchestrator.planning.layout import fits
from orchestrator.planning.parts import together
from orchestrator.planning.plan import Plan, make_plan, settled
from orchestrator.planning.preflight import human_bytes

# Tried one after another, the least harm first; the first that fits is told.
_CHANGES: tuple[dict[str, Any], ...] = (
    {"model.forward_contexts": CONTEXTS},
    {"train.block_batches": 1},
    {"model.dtype": "bfloat16"},
    {"train.block_batches": 1, "model.dtype": "bfloat16"},
    {"train.block_batches": 1, "model.dtype": "bfloat16", "train.batch_tokens": 2048},
)
# Of a plan with producers; none of these changes a result.
_LESS_SPLIT: tuple[dict[str, Any], ...] = (
    {"prefetch_steps": 1},
    {"producers": 1},
    {"producers": 1, "prefetch_steps": 1},
    {"topology": "fused"},
)


def remedies(
    manifest: Manifest, shape: ModelShape, inventory: Inventory, planned: Plan
) -> list[str]:
    """Ways to fit a manifest, as it was planned, into memories that are too small for it: a
    sentence each, none if none is known."""
    manifest = settled(manifest, inventory)
    if planned.producers:
        if fits(planned.memories, planned.exchange, inventory):
            return []  # it lacks disk alone, which none of these ways changes
        return [f"it would fit {way}" for way in _less_split(manifest, shape, inventory)][:1]
    cells = len(planned.cells)
    there = least_free(inventory.gpus) if inventory.gpus else inventory.memory_bytes
    trial = _Trial(manifest, shape, inventory)
    if there is None or trial.needed(cells) <= there:
        return []
    return [f"it would fit {way}" for way in _ways(trial, there, cells)]


def _less_split(manifest: Manifest, shape: ModelShape, inventory: Inventory) -> Iterator[str]:
    for changes in _LESS_SPLIT:
        keys = {"topology": "split", **changes}
        if keys["topology"] == "fused":
            keys |= {"producers": "auto", "prefetch_steps": "auto"}
        resources = manifest.resources.model_copy(update=keys)
        changed = manifest.model_copy(update={"resources": resources})
        plan = make_plan(changed, shape, inventory)
        if fits(plan.memories, plan.exchange, inventory):
            yield "with " + ", ".join(f"resources.{key}: {value}" for key, value in changes.items())


def _ways(trial: _Trial, there: int, cells: int) -> Iterator[str]:
    yield from trial.in_parts(there, cells)
    fewer = {"resources.cells": 1} if cells > 1 and not trial.on_gpus else {}
    if fewer and trial.needed(1) <= there:
        yield "with resources.cells: 1"
    if trial.on_gpus:
        yield f"on GPUs with {human_bytes(trial.least_room(cells))} of free memory"
    for changes in _CHANGES:
        changed = trial.changed(changes)
        if changed and changed.needed(1 if fewer else cells) <= there:
            listed = ", ".join(f"{key}: {value}" for key, value in {**fewer, **changes}.items())
            yield f"with {listed} (another result, so another run)"
            return


class _Trial:
    """A manifest that is planned again and again, for other numbers of cells."""

    def __init__(self, manifest: Manifest, shape: ModelShape, inventory: Inventory) -> None:
        self.manifest, self.shape, self.inventory = manifest, shape, inventory
        self.on_gpus = bool(inventory.gpus) and manifest.resources.device != "cpu"
        self._device = "cuda:0" if self.on_gpus else "cpu"
        self.specs = expand(manifest, shape.n_layers)
        self.transcoders = [plan_transcoder(spec, manifest, shape) for spec in self.specs]

    def changed(self, keys: Mapping[str, Any]) -> _Trial | None:
        """The same with other values of some keys; None if that lowers nothing."""
        manifest = self.manifest
        for key, value in keys.items():
            name, _, field = key.partition(".")
            section = getattr(manifest, name)
            before = getattr(section, field)
            if before == value or (isinstance(value, int) and before < value):
                return None
            section = section.model_copy(update={field: value})
            manifest = manifest.model_copy(update={name: section})
        return _Trial(manifest, self.shape, self.inventory)

    def in_parts(self, there: int, cells: int) -> Iterator[str]:
        """To spread them, in space or in time, so that each part fits by itself."""
        beside = 0 if self.on_gpus else self.inventory.driver_bytes
        parts = fewest_parts(self._sizes(), there - self._shared() - beside)
        if parts is None or parts == 1:
            return
        resources = self.manifest.resources
        if not self.on_gpus:
            one = " with resources.cells: 1" if cells > 1 else ""
            yield f"in {parts} runs{one} one after another, each with a part of the transcoders"
            return
        free = [] if resources.cells == "auto" else ["resources.cells: auto"]
        free += [] if ":" not in resources.device else ["resources.device: auto"]
        keys = f" with {', '.join(free)}" if free else ""
        if parts > len(self.inventory.gpus or ()):
            yield f"on {parts} such GPUs{keys}"
        elif free:
            yield f"on {parts} of these GPUs{keys}"
        if parts > cells:
            runs = -(-parts // cells)
            yield f"in {runs} runs one after another, each with a part of the transcoders"

    def needed(self, cells: int) -> int:
        """Bytes of the memory that needs most."""
        if self.on_gpus:
            return self.fullest_bytes(cells)
        parts = together([cell.memory for cell in self._cells(cells)])
        return sum(part.bytes for part in parts) + self.inventory.driver_bytes

    def least_room(self, cells: int) -> int:
        """Bytes of the smallest GPUs, one for each of so many cells, that would do, as a message
        shows them."""
        sizes = self._sizes()
        low, high = max(sizes), sum(sizes)
        while low < high:
            middle = (low + high) // 2
            parts = fewest_parts(sizes, middle)
            if parts is not None and parts <= cells:
                high = middle
            else:
                low = middle + 1
        # What two transcoders share is counted twice there: less may do, as the plan itself knows.
        enough = [_up(low + self._shared()), _up(self.fullest_bytes(cells))]
        return min(room for room in enough if self.fullest_bytes(cells, room) <= room)

    def fullest_bytes(self, cells: int, room: int | None = None) -> int:
        return max(cell.memory_bytes for cell in self._cells(cells, room))

    def _sizes(self) -> list[int]:
        plans = {plan.id: plan for plan in self.transcoders}
        ordered = sorted(self.specs, key=depth_of)
        return [own_bytes(plans[spec.id], self.manifest) for spec in ordered]

    def _shared(self) -> int:
        return shared_bytes(self.transcoders, self._device, self.manifest, self.shape)

    def _cells(self, count: int, room: int | None = None) -> tuple[CellPlan, ...]:
        devices = [self._device] * count
        if room is None and self.on_gpus:
            room = least_free(self.inventory.gpus or ())
        rooms = [room] * count
        return plan_cells(self.specs, self.transcoders, devices, self.manifest, self.shape, rooms)


def _up(count: int) -> int:
    """Rounded up to what a message shows, so that what it tells is enough."""
    step = 10**8 if count < 99 * 10**9 else 10**9
    return -(-count // step) * step
