"""A cell's connection to one producer, and its form within one process."""

from __future__ import annotations

from typing import Protocol

from mtc_core.producer import Activations
from orchestrator.exchange.producer import Producer
from orchestrator.exchange.transport import Transport


class LineLost(Exception):
    """The producer at the other end is gone; another line will come."""


class Line(Protocol):
    """To one start of a producer: what an earlier one had promised is nothing to a later one."""

    def ask(self, portion: int, cursor: int) -> None:
        """Say that there is room for a portion, and that none before the cursor is needed."""

    def take(self, portion: int) -> Activations | None:
        """The rows of a portion that was asked for; None if they are not there within a moment.
        Raises LineLost."""

    def leave(self) -> None:
        """Nothing more will be asked for."""


class LocalLine:
    """To a producer in this process."""

    def __init__(self, producer: Producer, reader: str, device: str, transport: Transport) -> None:
        self._producer, self._reader = producer, reader
        self._device, self._transport = device, transport

    def ask(self, portion: int, cursor: int) -> None:
        self._producer.ask(self._reader, portion, cursor)

    def take(self, portion: int) -> Activations | None:
        parcel = self._producer.find(self._reader, portion)
        if parcel is None:
            return None
        opened = (self._transport.open(h, self._device) for h in parcel.bundles.values())
        return {name: rows_ND for rows in opened for name, rows_ND in rows.items()}

    def leave(self) -> None:
        self._producer.leave(self._reader)
