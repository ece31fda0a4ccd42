"""Fused or split, and with how many processes: what is predicted to be faster, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mtc_core.config import TranscoderSpec
from mtc_core.model.model_shape import ModelShape
from orchestrator.manifest import Manifest
from orchestrator.messages import ManifestError
from orchestrator.planning.cell_plan import TranscoderPlan
from orchestrator.planning.inventory import Inventory
from orchestrator.planning.layout import Layout, fused_layout, split_layout
from orchestrator.planning.placement import Topology
from orchestrator.planning.predict import Prediction, predict

WORTH = 1.05  # what split has to be faster by, or fewer processes slower, to be taken
MOST_SLOTS = 64  # of a cluster of CPUs, beyond which not every number of producers is tried


@dataclass(frozen=True, slots=True)
class Choice:
    """The layout that a run has, and what was predicted of it and of the best of the other
    topology."""

    layout: Layout
    predicted: dict[Topology, Prediction]


def choose_layout(
    specs: Sequence[TranscoderSpec],
    transcoders: Sequence[TranscoderPlan],
    manifest: Manifest,
    shape: ModelShape,
    inventory: Inventory,
) -> Choice:
    """What the manifest asks for, or leaves open. Raises ManifestError where the machine does not
    have it."""
    plans = {transcoder.id: transcoder for transcoder in transcoders}
    wanted, open = _wanted(manifest), _several(manifest, inventory)
    tried: dict[Topology, list[tuple[Layout, Prediction]]] = {"fused": [], "split": []}
    for topology in ("fused", "split"):
        make = fused_layout if topology == "fused" else split_layout
        for variant in _variants(manifest, inventory, topology, len(specs)):
            try:
                layout = make(specs, transcoders, variant, shape, inventory)
            except ManifestError:
                if topology == wanted or (wanted is None and topology == "fused"):
                    raise
                continue
            tried[topology].append((layout, predict(layout, plans, manifest, inventory)))
    best = {topology: _best(found, inventory) for topology, found in tried.items() if found}
    predicted = {topology: prediction for topology, (_, prediction) in best.items()}
    chosen = wanted or ("fused" if not open else _faster(best, inventory))
    layout = best[chosen][0]
    return Choice(replace(layout, why=_why(layout, chosen, wanted, open, predicted)), predicted)


def _wanted(manifest: Manifest) -> Topology | None:
    """The topology that the manifest names; a number of producers names one."""
    resources = manifest.resources
    if resources.topology != "auto":
        return resources.topology
    return "split" if resources.producers != "auto" else None


def _several(manifest: Manifest, inventory: Inventory) -> bool:
    """Whether there is more than one device, so that there is something to choose."""
    if inventory.gpus and manifest.resources.device in ("auto", "cuda"):
        return len(inventory.gpus) > 1
    return len(inventory.node_cpus) > 1


def _variants(
    manifest: Manifest, inventory: Inventory, topology: Topology, transcoders: int
) -> Iterator[Manifest]:
    """The manifest with numbers of processes where it leaves them to us, on a cluster of CPUs: as
    many as there are slots. Everywhere else the placement knows."""
    resources = manifest.resources
    on_gpus = inventory.gpus and resources.device != "cpu"
    slots = _slots(manifest, inventory)
    if on_gpus or slots < 2:
        yield manifest
        return
    for producers in range(1, slots) if topology == "split" else (0,):
        if slots > MOST_SLOTS and producers & (producers - 1):
            continue  # powers of two
        changes: dict[str, int] = {}
        if topology == "split" and resources.producers == "auto":
            changes["producers"] = producers
        if resources.cells == "auto":
            left = slots - (producers if resources.producers == "auto" else resources.producers)
            changes["cells"] = max(1, min(left, transcoders))
        yield manifest.model_copy(update={"resources": resources.model_copy(update=changes)})
        if "producers" not in changes:
            return


def _slots(manifest: Manifest, inventory: Inventory) -> int:
    """Processes that a cluster of CPUs has room for, each within a node."""
    threads = manifest.resources.threads
    each = inventory.cores or 1 if threads == "auto" else threads
    return sum(cpus // each for cpus in inventory.node_cpus) if len(inventory.node_cpus) > 1 else 0


def _best(
    found: Sequence[tuple[Layout, Prediction]], inventory: Inventory
) -> tuple[Layout, Prediction]:
    """The fastest of those that fit; of such as are about as fast the one with fewest processes."""
    fitting = [entry for entry in found if _fits(entry[0], inventory)] or list(found)
    most = max(prediction.tokens_per_second for _, prediction in fitting)
    fast = [entry for entry in fitting if entry[1].tokens_per_second * WORTH >= most]
    return min(fast, key=lambda entry: len(entry[0].cells) + len(entry[0].producers))


def _faster(best: dict[Topology, tuple[Layout, Prediction]], inventory: Inventory) -> Topology:
    if "split" not in best:
        return "fused"
    (fused, slow), (split, fast) = best["fused"], best["split"]
    if _fits(fused, inventory) != _fits(split, inventory):
        return "fused" if _fits(fused, inventory) else "split"
    return "split" if fast.tokens_per_second > WORTH * slow.tokens_per_second else "fused"


def _fits(layout: Layout, inventory: Inventory) -> bool:
    for device, parts in layout.memories(inventory.driver_bytes).items():
        there = inventory.memory_bytes if device == "cpu" else inventory.free_bytes(device)
        if there is not None and sum(part.bytes for part in parts) > there:
            return False
    return True


def _why(
    layout: Layout,
    chosen: Topology,
    wanted: Topology | None,
    open: bool,
    predicted: dict[Topology, Prediction],
) -> str:
    other: Topology = "split" if chosen == "fused" else "fused"
    if wanted or not open or other not in predicted:
        return layout.why
    ratio = predicted[chosen].tokens_per_second / predicted[other].tokens_per_second
    if ratio >= WORTH:
        return f"{layout.why}; {other} would be {ratio:.1f} x slower by prediction"
    return f"{layout.why}; {other} would not be faster by prediction"
