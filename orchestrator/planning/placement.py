"""How many cells there are, on which devices, with how many threads: manifest and machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from orchestrator.manifest import Manifest
from orchestrator.messages import ManifestError, Problem
from orchestrator.planning.inventory import Inventory


@dataclass(frozen=True, slots=True)
class Placement:
    """One device (`cpu`, or a GPU of its own) for each cell; GPUs are numbered through all nodes.
    threads None: as many as the machine has cores, which is not known. `notes` say what asks for
    attention: less than was asked for, devices that stay idle, more threads than cores."""

    devices: tuple[str, ...]
    threads: int | None
    notes: tuple[str, ...]


def place(manifest: Manifest, inventory: Inventory, transcoders: int) -> Placement:
    """Place so many transcoders: no cell without one, and never two cells on a GPU.

    Raises ManifestError where the manifest asks for GPUs that are not there."""
    resources = manifest.resources
    gpus = _gpus(manifest, inventory)
    asked = max(1, len(gpus)) if resources.cells == "auto" else resources.cells
    cells = min(asked, transcoders)
    if gpus and cells > len(gpus):
        has = "there is 1" if len(gpus) == 1 else f"there are {len(gpus)}"
        on_cpu = "" if inventory.cores is None else ", or device: cpu"  # not for GPUs elsewhere
        text = f"{cells} cells need a GPU each, and {has}; use auto{on_cpu}"
        _refuse(manifest, "cells", text)
    threads = inventory.cores if resources.threads == "auto" else resources.threads
    notes: list[str] = []
    if resources.cells != "auto" and cells < asked:
        notes.append(f"resources.cells: {cells} instead of {asked}, one for each transcoder")
    if inventory.gpus and (idle := gpus[cells:]):
        why = "every transcoder has one" if cells == transcoders else f"resources.cells is {cells}"
        notes.append(f"idle: {device_names(_cuda(idle), inventory.node_gpus)} ({why})")
    if inventory.node_gpus and cells > 1:
        notes.append("every node needs to see the run folder and the model under the same paths")
    if not gpus and inventory.cores:
        assert threads is not None
        notes += _crowding(cells, threads, inventory.cores)
    devices = _cuda(gpus[:cells]) or ("cpu",) * cells
    return Placement(devices, threads, tuple(notes))


def device_names(devices: Sequence[str], node_gpus: int | None = None) -> str:
    """`cpu`, `cuda:2`, or `cuda:2-5` for several GPUs in a row. With so many GPUs on each node:
    `nodes 0-2, node 3 cuda:0-1`."""
    first, last = devices[0], devices[-1]
    if first == "cpu":
        return first
    begin, end = (int(device.removeprefix("cuda:")) for device in (first, last))
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


def _gpus(manifest: Manifest, inventory: Inventory) -> range:
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


def _crowding(cells: int, threads: int, cores: int) -> Iterator[str]:
    """A note if processes that compute on the CPU have more threads than there are cores."""
    if cells * threads <= cores:
        return
    if cells == 1:
        yield f"{threads} threads on {cores} cores slow each other down; lower resources.threads"
        return
    yield (
        f"{cells} cells with {threads} threads each slow each other down on {cores} cores; lower "
        f"resources.cells, or set resources.threads to {max(1, cores // cells)} before the run "
        "begins (it is part of the result)"
    )


def _refuse(manifest: Manifest, key: str, text: str) -> NoReturn:
    path = ("resources", key)
    raise ManifestError(str(Problem(manifest.mark(path), path, text)))
