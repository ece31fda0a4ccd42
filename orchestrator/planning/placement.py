"""How many cells and producers there are, on which devices, with how many threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from orchestrator.manifest import Manifest
from orchestrator.messages import ManifestError, Problem
from orchestrator.planning.inventory import Inventory

Topology = Literal["fused", "split"]


@dataclass(frozen=True, slots=True)
class Placement:
    """A device (`cpu`, or a GPU) for each cell and each producer; of the latter there are none
    where cells run the model for themselves. GPUs are numbered through all nodes. threads None: as
    many as the machine has cores, which is not known. `notes` say what asks for attention: less
    than was asked for, devices that stay idle, more threads than cores."""

    topology: Topology
    cells: tuple[str, ...]
    producers: tuple[str, ...]
    threads: int | None
    notes: tuple[str, ...]

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device once, in order."""
        return tuple(sorted({*self.cells, *self.producers}, key=_number))


def place(
    manifest: Manifest, inventory: Inventory, transcoders: int, topology: Topology
) -> Placement:
    """Place so many transcoders: no cell without one, and never two cells, or two producers, on a
    GPU. A producer shares the GPU of a cell where none is left for it alone.

    Raises ManifestError where the manifest asks for GPUs that are not there."""
    resources = manifest.resources
    gpus = gpus_for(manifest, inventory)
    asked = max(1, len(gpus)) if resources.cells == "auto" else resources.cells
    cells = min(asked, transcoders)
    if gpus and cells > len(gpus):
        _refuse(manifest, "cells", _too_few(f"{cells} cells", gpus, inventory))
    chosen = _roomiest(gpus, cells, inventory)
    producers = _producers(manifest, inventory, gpus, chosen) if topology == "split" else ()
    threads = inventory.cores if resources.threads == "auto" else resources.threads
    notes: list[str] = []
    if resources.cells != "auto" and cells < asked:
        notes.append(f"resources.cells: {cells} instead of {asked}, one for each transcoder")
    if producers and resources.producers != "auto" and len(producers) < resources.producers:
        notes.append(
            f"resources.producers: {len(producers)} instead of {resources.producers}, one for each "
            "block of text"
        )
    taken = {*_cuda(chosen), *producers}
    idle = [gpu for gpu in gpus if f"cuda:{gpu}" not in taken]
    if inventory.gpus and idle:
        why = "every transcoder has one" if cells == transcoders else f"resources.cells is {cells}"
        why += f", and producers are {len(producers)}" if producers else ""
        notes.append(f"idle: {device_names(_cuda(idle), inventory.node_gpus)} ({why})")
    if inventory.node_gpus and cells + len(producers) > 1:
        notes.append("every node needs to see the run folder and the model under the same paths")
    if not gpus and (cores := sum(inventory.node_cpus) or inventory.cores):
        assert threads is not None
        notes += _crowding(cells, len(producers), threads, cores)
    return Placement(topology, _cuda(chosen) or ("cpu",) * cells, producers, threads, tuple(notes))


def _producers(
    manifest: Manifest, inventory: Inventory, gpus: range, cells: Sequence[int]
) -> tuple[str, ...]:
    """A device for each: first GPUs without a cell. No producer without a block."""
    asked = manifest.resources.producers
    train = manifest.train.config()
    blocks = -(-train.steps // train.block_batches)
    count = min(max(1, len(gpus)) if asked == "auto" else asked, blocks)
    if not gpus:
        return ("cpu",) * count
    if count > len(gpus):
        _refuse(manifest, "producers", _too_few(f"{count} producers", gpus, inventory))
    taken = set(cells)
    free = [gpu for gpu in gpus if gpu not in taken]
    return _cuda(sorted([*free, *cells][:count]))


def _roomiest(gpus: range, count: int, inventory: Inventory) -> list[int]:
    """So many of these GPUs, in order: those with the most free memory, where that is known."""

    def free(index: int) -> int:
        known = inventory.gpus[index].free_bytes if inventory.gpus else None
        return known or 0

    return sorted(sorted(gpus, key=free, reverse=True)[:count])


def _too_few(what: str, gpus: range, inventory: Inventory) -> str:
    has = "there is 1" if len(gpus) == 1 else f"there are {len(gpus)}"
    on_cpu = "" if inventory.cores is None else ", or device: cpu"  # not for GPUs elsewhere
    return f"{what} need a GPU each, and {has}; use auto{on_cpu}"


def _number(device: str) -> int:
    return -1 if device == "cpu" else int(device.partition(":")[2])


def device_names(devices: Sequence[str], node_gpus: int | None = None) -> str:
    """`cpu`, `cuda:2`, or `cuda:2-5` for several GPUs in a row. With so many GPUs on each node:
    `nodes 0-2, node 3 cuda:0-1`."""
    if devices[0] == "cpu":
        return "cpu"
    numbers = list(map(_number, devices))
    begins = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(_row(*row, node_gpus) for row in zip(begins, ends, strict=True))


def _row(begin: int, end: int, node_gpus: int | None) -> str:
    """The names of GPUs in a row."""
    if node_gpus is None:
        return _span("cuda:", begin, end)
    head, tail = -(-begin // node_gpus), (end + 1) // node_gpus  # nodes head..tail-1 are whole
    if head > tail:  # a part of one node
        return f"node {tail} {_span('cuda:', begin % node_gpus, end % node_gpus)}"
    parts = []
    if begin % node_gpus:
        parts.append(f"node {head - 1} {_span('cuda:', begin % node_gpus, node_gpus - 1)}")
    if head < tail:
        parts.append(_span("nodes " if tail - head > 1 else "node ", head, tail - 1))
    if (end + 1) % node_gpus:
        parts.append(f"node {tail} {_span('cuda:', 0, end % node_gpus)}")
    return ", ".join(parts)


def _span(name: str, first: int, last: int) -> str:
    return f"{name}{first}" if first == last else f"{name}{first}-{last}"


def _cuda(indices: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"cuda:{index}" for index in indices)


def gpus_for(manifest: Manifest, inventory: Inventory) -> range:
    """GPUs that cells may take, in order; none means the CPU."""
    resources, gpus = manifest.resources, inventory.gpus
    wanted, cells = resources.device, resources.cells
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return range(0)
    _, named, index = wanted.partition(":")
    first = int(index or 0)
    if gpus is not None and first >= len(gpus):
        text = f'"{wanted}" is not here: there are {len(gpus)} GPUs; use auto'
        _refuse(manifest, "device", text)
    if named:
        return range(first, first + 1)
    if gpus is None:  # nobody has looked: what is asked for is taken to be there
        return range(1 if cells == "auto" else cells)
    return range(len(gpus))


def _crowding(cells: int, producers: int, threads: int, cores: int) -> Iterator[str]:
    """A note if processes that compute on the CPU have more threads than there are cores."""
    if (processes := cells + producers) * threads <= cores:
        return
    if processes == 1:
        yield f"{threads} threads on {cores} cores slow each other down; lower resources.threads"
        return
    also = f" and {_counted(producers, 'producer')}" if producers else ""
    keys = "resources.cells or resources.producers" if producers else "resources.cells"
    fewer = max(1, cores // processes)
    or_threads = (
        f", or set resources.threads to {fewer} before the run begins (it is part of the result)"
    )
    yield (
        f"{_counted(cells, 'cell')}{also} with {_counted(threads, 'thread')} each slow each other "
        f"down on {cores} cores; lower {keys}{or_threads if fewer < threads else ''}"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}"


def _refuse(manifest: Manifest, key: str, text: str) -> NoReturn:
    path = ("resources", key)
    raise ManifestError(str(Problem(manifest.mark(path), path, text)))
