"""Where cells run. The driver knows only this interface; `LocalBackend` is its in-process form."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from orchestrator.cells.cell import Cell
from orchestrator.cells.job import CellJob
from orchestrator.cells.status import CellStatus, Event
from orchestrator.manifest import Manifest
from orchestrator.planning.inventory import Inventory, take_inventory


class Backend(Protocol):
    """Starts cells, reports what they say, replaces and stops them. It takes no decision."""

    @property
    def name(self) -> str:
        """How the command line calls it."""

    def inventory(self, root: Path, manifest: Manifest) -> Inventory:
        """What there is to plan for."""

    def start(self, run: str, jobs: Sequence[CellJob]) -> list[str]:
        """Have every cell load what it needs; no tokens yet. Sentences for the user."""

    def check(self) -> None:
        """Raise what has gone wrong with any cell since; do not wait."""

    def wait(self) -> list[Event] | None:
        """What cells have said since, maybe nothing yet; None when all have ended. The first call
        says that tokens are there. A cell's error is raised; a cell that died is an event."""

    def replace(self, cell: str) -> None:
        """Begin a cell's job anew, from its checkpoints."""

    def stop(self) -> list[Event]:
        """Checkpoint every cell that still runs: what they have said since. Raises, after all have
        been asked, what went wrong with any."""

    def close(self, clean: bool) -> None:
        """Leave nothing running that `start` began. clean: nobody needs its logs."""


class LocalBackend:
    """Cells in this process, one step each in turn: for one device, and for debugging."""

    name = "local"

    def __init__(self) -> None:
        self._cells: dict[str, tuple[Cell, Iterator[CellStatus]]] = {}
        self._answered_at: dict[str, float] = {}
        self._turn: list[str] = []
        self._loaded: list[Event] = []

    def inventory(self, root: Path, manifest: Manifest) -> Inventory:
        inventory = take_inventory(root, manifest.resources.device, manifest.resources.cells)
        return replace(inventory, driver_bytes=0)

    def start(self, run: str, jobs: Sequence[CellJob]) -> list[str]:
        for job in jobs:
            self._begin(job)
        return []

    def check(self) -> None:
        """Nothing happens between calls."""

    def wait(self) -> list[Event] | None:
        if self._loaded:
            loaded, self._loaded = self._loaded, []
            return loaded
        while self._turn:
            name = self._turn.pop(0)
            cell, statuses = self._cells[name]
            now = time.monotonic()
            cell.waited(now - self._answered_at.get(name, now))  # while others had their turn
            status = next(statuses, None)
            self._answered_at[name] = time.monotonic()
            if status is not None:
                self._turn.append(name)
                return [status]
        return None

    def replace(self, cell: str) -> None:
        job = self._cells[cell][0].job
        self._cells[cell][0].close()
        self._begin(job)

    def stop(self) -> list[Event]:
        cells = [self._cells[name][0] for name in self._turn]
        self._turn = []
        for cell in cells:
            cell.checkpoint()
        return [cell.status("training") for cell in cells]

    def close(self, clean: bool) -> None:
        for cell, _ in self._cells.values():
            cell.close()
        self._cells, self._turn = {}, []

    def _begin(self, job: CellJob) -> None:
        cell = Cell(job)
        self._cells[job.name] = (cell, cell.run())
        if job.name not in self._turn:
            self._turn.append(job.name)
        self._loaded.append(cell.load())
