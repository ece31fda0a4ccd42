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
from orchestrator.planning.layout import Layout, fits, fused_layout, split_layout
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
    wanted, several = _wanted(manifest), _several(manifest, inventory)
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
    chosen = wanted or (_faster(best, inventory) if several else "fused")
    layout = best[chosen][0]
    if wanted:
        why = "" if manifest.resources.topology != "auto" else "resources.producers asks for it"
    else:
        why = _why(chosen, best, several, inventory)
    return Choice(replace(layout, why="; ".join(filter(None, (layout.why, why)))), predicted)


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
    """The manifest with numbers of processes where it leaves them to us. On a cluster of CPUs
    those that there are slots for; of GPUs, producers on all of them or on those without a cell."""
    resources = manifest.resources
    cells, producers = resources.cells, resources.producers
    on_gpus = inventory.gpus and resources.device != "cpu"
    slots = _slots(manifest, inventory)
    if on_gpus or slots < 2:
        yield manifest
        taken = transcoders if cells == "auto" else min(cells, transcoders)
        left = 0 if ":" in resources.device else len(inventory.gpus or ()) - taken
        if on_gpus and topology == "split" and producers == "auto" and left > 0:
            yield _with(manifest, producers=left)
        return
    if topology == "fused":
        most = min(slots, transcoders)
        for count in [most, *_powers(most)] if cells == "auto" else [cells]:
            yield _with(manifest, cells=count)
        return
    left = slots - (1 if cells == "auto" else cells)
    if left < 1 and _wanted(manifest) is None:
        return
    left = max(1, left)
    blocks = -(-manifest.train.config().steps // manifest.train.block_batches)
    some = _powers(left + 1) if slots > MOST_SLOTS else range(1, left + 1)
    for count in some if producers == "auto" else [producers]:
        room = max(1, min(slots - count, transcoders))
        if producers == "auto" and count > blocks:
            return
        yield _with(manifest, producers=count, cells=room if cells == "auto" else cells)


def _with(manifest: Manifest, **counts: int) -> Manifest:
    resources = manifest.resources.model_copy(update=counts)
    return manifest.model_copy(update={"resources": resources})


def _powers(below: int) -> list[int]:
    """Of two."""
    return [2**exponent for exponent in range(below.bit_length()) if 2**exponent < below]


def _slots(manifest: Manifest, inventory: Inventory) -> int:
    """Processes that a cluster of CPUs has room for, each within a node."""
    threads = manifest.resources.threads
    each = inventory.cores or 1 if threads == "auto" else threads
    return sum(cpus // each for cpus in inventory.node_cpus) if len(inventory.node_cpus) > 1 else 0


def _best(
    found: Sequence[tuple[Layout, Prediction]], inventory: Inventory
) -> tuple[Layout, Prediction]:
    """The fastest of those that fit; of such as are about as fast the one with fewest processes.
    Where none fits, the one that needs least."""
    fitting = [entry for entry in found if _fits(entry[0], inventory)]
    if not fitting:
        return min(found, key=lambda entry: _needed(entry[0], inventory))
    most = max(prediction.tokens_per_second for _, prediction in fitting)
    fast = [entry for entry in fitting if entry[1].tokens_per_second * WORTH >= most]
    return min(fast, key=lambda entry: len(entry[0].cells) + len(entry[0].producers))


def _faster(best: dict[Topology, tuple[Layout, Prediction]], inventory: Inventory) -> Topology:
    if "split" not in best:
        return "fused"
    (fused, slow), (split, fast) = best["fused"], best["split"]
    if not _fits(split, inventory):
        return "fused"
    if not _fits(fused, inventory):
        return "split"
    if not fast.known and split.cells[0].device != "cpu":  # it may be another kind of GPU by far
        return "fused"
    return "split" if fast.tokens_per_second > WORTH * slow.tokens_per_second else "fused"


def _fits(layout: Layout, inventory: Inventory) -> bool:
    return fits(layout.memories(inventory.driver_bytes), layout.exchange, inventory)


def _needed(layout: Layout, inventory: Inventory) -> int:
    """Bytes of the memory that needs most."""
    memories = layout.memories(inventory.driver_bytes).values()
    return max(sum(part.bytes for part in parts) for parts in memories)


def _why(
    chosen: Topology,
    best: dict[Topology, tuple[Layout, Prediction]],
    several: bool,
    inventory: Inventory,
) -> str:
    """Why not the other topology."""
    other: Topology = "split" if chosen == "fused" else "fused"
    if other not in best:
        return ""
    ratio = best[chosen][1].tokens_per_second / best[other][1].tokens_per_second
    if not several:  # nothing is tried out where the machine may have other things to do
        if WORTH * ratio > 1:
            return ""
        return f"{other} would be faster by prediction (resources.topology: {other})"
    if _fits(best[chosen][0], inventory) and not _fits(best[other][0], inventory):
        return f"{other} would not fit"
    if ratio >= WORTH:
        return f"{other} would be {ratio:.1f} x slower by prediction"
    if WORTH * ratio <= 1:
        return f"{other} may be faster, but how fast these GPUs are is not known"
    return f"{other} would not be faster by prediction"
