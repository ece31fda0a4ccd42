"""Where cells run. The driver knows only this interface; `LocalBackend` is its in-process form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from orchestrator.cell import Cell, CellJob
from orchestrator.status import CellStatus


class Backend(Protocol):
    """Starts cells, reports what they say, replaces and stops them. It takes no decision."""

    def start(self, jobs: Sequence[CellJob]) -> None:
        """Begin every job. Returns before they are done."""

    def wait(self) -> CellStatus | None:
        """The next status of any cell, or None when all have ended. A cell's error is raised."""

    def replace(self, cell: str) -> None:
        """Begin a cell's job anew, from its checkpoints."""

    def stop(self) -> None:
        """Checkpoint every cell that still runs, and end it."""


class LocalBackend:
    """Cells in this process, one step each in turn: for one device, and for debugging."""

    def __init__(self) -> None:
        self._cells: dict[str, tuple[Cell, Iterator[CellStatus]]] = {}
        self._turn: list[str] = []

    def start(self, jobs: Sequence[CellJob]) -> None:
        for job in jobs:
            self._begin(job)

    def wait(self) -> CellStatus | None:
        while self._turn:
            name = self._turn.pop(0)
            status = next(self._cells[name][1], None)
            if status is not None:
                self._turn.append(name)
                return status
        return None

    def replace(self, cell: str) -> None:
        self._begin(self._cells[cell][0].job)

    def stop(self) -> None:
        for name in self._turn:
            self._cells[name][0].checkpoint()
        self._turn = []

    def _begin(self, job: CellJob) -> None:
        cell = Cell(job)
        self._cells[job.name] = (cell, cell.run())
        if job.name not in self._turn:
            self._turn.append(job.name)
