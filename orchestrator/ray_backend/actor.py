"""The actor that trains: a `Cell` in a process of its own.

The driver asks it to go on for about a second at a time, and has the next request waiting before
the last one is answered, so that it never idles. There is no thread and no queue: what it does
next is what it was asked next.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import ray

from orchestrator.cells.cell import Cell
from orchestrator.cells.job import CellJob
from orchestrator.cells.status import CellStatus
from orchestrator.ray_backend.gauges import Gauges

MASKED_GPU = "cuda:0"  # Ray shows an actor its own GPU only


class TranscoderTrainer:
    """Producer and transcoders of one cell."""

    def __init__(self, job: CellJob, run: str) -> None:
        device = job.device if job.device == "cpu" else MASKED_GPU
        self._cell = Cell(replace(job, device=device))
        self._statuses = self._cell.run()
        self._status: CellStatus | None = None
        self._gauges = Gauges(run, job.name)
        self._answered_at: float | None = None

    def __repr__(self) -> str:
        return self._cell.job.name

    def load(self) -> CellStatus:
        """See Cell.load."""
        self._status = self._cell.load()
        return self._status

    def advance(self, seconds: float) -> CellStatus:
        """Go on for so long, or to the end: the last status, with the messages of all."""
        if self._answered_at is not None:
            self._cell.waited(time.monotonic() - self._answered_at)
        messages: list[str] = []
        deadline = time.monotonic() + seconds
        for status in self._statuses:
            self._status = status
            messages += status.messages
            if time.monotonic() >= deadline:
                break
        assert self._status is not None, "load() comes first"
        self._gauges.show(self._status)
        self._answered_at = time.monotonic()
        return replace(self._status, messages=tuple(messages))

    def checkpoint(self) -> CellStatus:
        """Save the state of every transcoder now."""
        self._cell.checkpoint()
        return self._cell.status("training")


def trainer_actor(job: CellJob, run: str, **options: Any) -> Any:
    """Start one; a handle. Ray must not restart it: the driver decides that (failures.py)."""
    remote = ray.remote(max_restarts=0, max_task_retries=0)(TranscoderTrainer)
    return remote.options(**options).remote(job, run)
