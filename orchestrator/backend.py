"""Where cells and producers run. The driver knows only this interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.cells.job import CellJob, ProducerJob
from orchestrator.cells.status import Event
from orchestrator.manifest import Manifest
from orchestrator.planning.inventory import Inventory


class Backend(Protocol):
    """Starts cells, reports what they say, replaces and stops them. It takes no decision."""

    @property
    def name(self) -> str:
        """How the command line calls it."""

    @property
    def trains_here(self) -> bool:
        """Whether cells are in this process, which then holds torch and the model anyway."""

    def inventory(self, root: Path, manifest: Manifest) -> Inventory:
        """What there is to plan for."""

    def start(
        self, run: str, cells: Sequence[CellJob], producers: Sequence[ProducerJob]
    ) -> list[str]:
        """Have everybody load what they need; no tokens yet. Sentences for the user."""

    def check(self) -> None:
        """Raise what has gone wrong with any cell since; do not wait."""

    def wait(self) -> list[Event] | None:
        """What cells have said since, maybe nothing yet; None when all have ended. The first call
        says that tokens are there. An error of a process is raised; one that died is an event."""

    def replace(self, name: str) -> None:
        """Begin the job of a cell, from its checkpoints, or of a producer anew: once what that
        takes is there."""

    def stop(self) -> list[Event]:
        """Checkpoint every cell that still runs: what they have said since. Raises, after all have
        been asked, what went wrong with any."""

    def close(self, clean: bool) -> None:
        """Leave nothing running that `start` began. clean: nobody needs its logs."""
