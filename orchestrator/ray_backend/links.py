"""Who feeds whom: cells are connected to producers as both come up, and anew as either is replaced.

All that start together are connected at once, when the last of them has loaded: producers then know
whom they have to wait for. So are cells that are replaced at the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import ray

from orchestrator.cells.job import CellJob, Job, ProducerJob, reader_name


@dataclass(slots=True, eq=False)
class Running:
    """An actor and its unanswered requests, oldest first. `start`: how many processes have been it,
    this one included. begun: it is asked to work; ending: to tell the last of it, and no more.
    saving: the request, if any, to save before its node is gone."""

    job: Job
    actor: Any
    start: int
    refs: deque[ray.ObjectRef] = field(default_factory=deque)
    loaded: bool = False
    begun: bool = False
    ending: bool = False
    saving: ray.ObjectRef | None = None
    answered_at: float = 0.0
    node: str = ""  # once it has loaded

    @property
    def reader(self) -> str:
        return reader_name(self.job.name, self.start)


class Links:
    """Between the cells and the producers of a run."""

    def __init__(self, fed: bool) -> None:
        """fed: whether there are producers, or all are on their own."""
        self._fed = fed
        self._together = False

    def begin(self, everybody: Iterable[Running]) -> list[Running]:
        """Connect whoever is ready, once tokens are there: those that may be asked to work now."""
        everybody = list(everybody)
        cells = [running for running in everybody if isinstance(running.job, CellJob)]
        if not self._fed:
            ready = [running for running in everybody if not running.begun]
        else:
            first = everybody if not self._together else cells
            self._together |= all(running.loaded for running in everybody)
            waiting = not all(running.loaded for running in first)
            ready = [
                running
                for running in everybody
                if running.loaded and not running.begun and not (waiting and running in first)
            ]
        for running in ready:
            running.begun = True
        _connect(ready, [running for running in everybody if running.begun])
        return ready

    def forget(self, lost: Running, everybody: Iterable[Running]) -> None:
        """A cell is done or dead: nobody is to wait for it."""
        if isinstance(lost.job, CellJob):
            for running in everybody:
                if running.begun and isinstance(running.job, ProducerJob):
                    running.actor.leave.remote(lost.reader)


def _connect(ready: list[Running], begun: list[Running]) -> None:
    cells = [running for running in begun if isinstance(running.job, CellJob)]
    new = [cell.reader for cell in cells if cell in ready]
    for running in begun:
        if isinstance(running.job, CellJob):
            continue
        if running in ready:
            running.refs.append(running.actor.begin.remote([cell.reader for cell in cells]))
        elif new:
            running.actor.expect.remote(new)
    for producer in begun:
        if not isinstance(producer.job, ProducerJob):
            continue
        for cell in cells:
            if cell in ready or producer in ready:
                cell.actor.connect.remote(
                    producer.job.index, producer.actor, producer.start, cell.reader
                )
