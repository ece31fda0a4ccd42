"""Shares of a memory or of a disk, and the manifest key that changes each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CELLS_KEY, PRODUCERS_KEY = "resources.cells", "resources.producers"
PREFETCH_KEY = "resources.prefetch_steps"
STATES = "transcoders with Adam and gradients"
# What every process that has it at all has in full, whatever its share of the work.
COPIED = (MODEL, FORWARD, RUNTIME) = ("model weights", "forward pass", "Python and torch")


@dataclass(frozen=True, slots=True)
class Part:
    """A share of memory or disk, and the manifest key that changes it."""

    what: str
    bytes: int
    key: str


def together(processes: Sequence[Sequence[Part]], copies_key: str = CELLS_KEY) -> tuple[Part, ...]:
    """The memory of processes that share one, added up. copies_key: of what has several copies."""
    return tuple(_summed(processes, copies_key))


def _summed(processes: Sequence[Sequence[Part]], copies_key: str) -> Iterator[Part]:
    kinds: dict[str, list[Part]] = {}
    for parts in processes:
        for part in parts:
            kinds.setdefault(part.what, []).append(part)
    for what, parts in kinds.items():
        size = sum(part.bytes for part in parts)
        if len(parts) > 1 and what in COPIED:
            yield Part(f"{what}, {len(parts)} copies", size, copies_key)
        else:
            yield Part(what, size, parts[0].key)
