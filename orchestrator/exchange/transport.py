"""How rows get from a producer to a cell. One small interface, and its form within one process.

N rows of a portion · D width of a site
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from mtc_core.producer import Activations

Tensors = tuple[str, ...]  # names, by `Site.tensor`


@dataclass(frozen=True, slots=True)
class Parcel:
    """A published portion. Its tensors lie in as many bundles as there are sets of readers, so
    that nobody fetches what he does not read. Handles are the transport's own."""

    portion: int
    bundles: dict[Tensors, Any]

    def for_reader(self, tensors: Tensors) -> Parcel:
        """The bundles of which a reader of these tensors wants any, and so all."""
        wanted = set(tensors)
        bundles = {names: h for names, h in self.bundles.items() if wanted.issuperset(names)}
        return Parcel(self.portion, bundles)


class Transport(Protocol):
    """Rows [N, D] by tensor name go in at one end, and come out at others. What is published lives
    as long as anybody holds its handle; what was opened is only read."""

    def publish(self, rows: Activations) -> Any:
        """Take the rows; a handle. The producer writes over its own at once."""

    def open(self, handle: Any, device: str) -> Activations:
        """The rows behind a handle."""


class Copies:
    """Within one process: a handle is a copy of the rows."""

    def publish(self, rows: Activations) -> Any:
        return {name: rows_ND.clone() for name, rows_ND in rows.items()}

    def open(self, handle: Any, device: str) -> Activations:
        return handle


def bundles_of(readers: dict[str, Tensors]) -> list[Tensors]:
    """The distinct tensors of all readers, those together that the same readers want."""
    wanting: dict[str, list[str]] = {}
    for reader, tensors in readers.items():
        for tensor in tensors:
            wanting.setdefault(tensor, []).append(reader)
    bundles: dict[tuple[str, ...], list[str]] = {}
    for tensor, names in wanting.items():
        bundles.setdefault(tuple(names), []).append(tensor)
    return [tuple(tensors) for tensors in bundles.values()]
