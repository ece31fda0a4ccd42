"""The in-process form of `Backend`: for one device, and for debugging."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.cells.cell import Cell
from orchestrator.cells.job import CellJob, Fed, ProducerJob, reader_name
from orchestrator.cells.status import CellStatus, Event
from orchestrator.exchange.exchange_feed import ExchangeFeed
from orchestrator.exchange.line import LocalLine
from orchestrator.exchange.producer import Producer
from orchestrator.exchange.transport import Copies
from orchestrator.manifest import Manifest
from orchestrator.planning.inventory import Inventory, take_inventory


class LocalBackend:
    """Cells and producers in this process, which take turns: a step, a forward pass or a portion
    each."""

    name, trains_here = "local", True

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}
        self._statuses: dict[str, Iterator[CellStatus]] = {}
        self._producers: dict[str, Producer] = {}
        self._work: dict[str, Iterator[bool]] = {}
        self._answered_at: dict[str, float] = {}
        self._turns: deque[str] = deque()
        self._loaded: list[Event] = []
        self._tokens_there = False

    def inventory(self, root: Path, manifest: Manifest) -> Inventory:
        inventory = take_inventory(root, manifest.resources.device)
        return replace(inventory, driver_bytes=0)

    def start(
        self, run: str, cells: Sequence[CellJob], producers: Sequence[ProducerJob]
    ) -> list[str]:
        for producer_job in producers:
            self._producers[producer_job.name] = producer = Producer(producer_job, Copies())
            self._loaded.append(producer.load())
        for job in cells:
            self._begin(job)
        return []

    def check(self) -> None:
        """Nothing happens between calls."""

    def wait(self) -> list[Event] | None:
        if self._loaded:
            loaded, self._loaded = self._loaded, []
            return loaded
        if not self._tokens_there:
            self._tokens_there = True
            self._connect()
        if not self._statuses:
            return None
        name = self._turns[0]
        self._turns.rotate(-1)
        return self._produce(name) if name in self._work else self._train(name)

    def replace(self, cell: str) -> None:
        raise AssertionError("nothing of this process dies alone")

    def stop(self) -> list[Event]:
        cells = [self._cells[name] for name in self._statuses]
        self._statuses = {}
        errors: list[Exception] = []
        for cell in cells:
            try:
                cell.checkpoint()
            except Exception as error:
                errors.append(error)  # the others are saved all the same
        if errors:
            raise errors[0]
        return [cell.status("training") for cell in cells]

    def close(self, clean: bool) -> None:
        for cell in self._cells.values():
            cell.close()
        self._cells, self._statuses, self._producers, self._work = {}, {}, {}, {}

    def _begin(self, job: CellJob) -> None:
        feed = ExchangeFeed(job.feed, job.device) if isinstance(job.feed, Fed) else None
        self._cells[job.name] = cell = Cell(job, feed)
        self._statuses[job.name] = cell.run()
        self._turns.append(job.name)
        self._loaded.append(cell.load())

    def _connect(self) -> None:
        """Every cell to every producer."""
        readers = {name: reader_name(name, 1) for name in self._cells}
        for producer in self._producers.values():
            producer.begin(readers.values())
            self._work[producer.job.name] = producer.run()
            self._turns.append(producer.job.name)
            for name, cell in self._cells.items():
                assert isinstance(cell.feed, ExchangeFeed)
                line = LocalLine(producer, readers[name], cell.job.device, Copies())
                cell.feed.connect(producer.job.index, line)

    def _train(self, name: str) -> list[Event]:
        cell = self._cells[name]
        now = time.monotonic()
        cell.waited(now - self._answered_at.get(name, now))  # while others had their turn
        status = next(self._statuses[name], None)
        self._answered_at[name] = time.monotonic()
        if status is not None:
            return [status]
        del self._statuses[name]
        self._turns.remove(name)
        return []

    def _produce(self, name: str) -> list[Event]:
        worked = next(self._work[name])
        return [self._producers[name].status()] if worked else []
