"""A producer: the model, and the desk at which cells ask for its rows.

    load() -> begin(): tokens are there -> run(): one forward pass or one portion at a time

Cells `ask` and `find` while it runs, maybe from another thread. The same class runs in this process
and inside an actor.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

import psutil
import torch

from mtc_core.kept_memory import keep_freed_memory
from orchestrator.cells.forwarder import Forwarder, Lot
from orchestrator.cells.job import ProducerJob, see_files
from orchestrator.cells.memory_errors import memory_errors
from orchestrator.cells.status import ProducerStatus
from orchestrator.exchange.desk import Desk, Turn
from orchestrator.exchange.stream import Forward
from orchestrator.exchange.transport import Parcel, Transport, bundles_of

_END = object()


@dataclass(slots=True)
class _Work:
    """What fills a stream's buffer. A lot that was begun is gone on with, unless another is."""

    lot: int = -1
    passes: Iterator[None] = field(default_factory=lambda: iter(()))
    rows: Lot = field(default_factory=Lot)


class Producer:
    """Serves every `count`th lot of a run. `load()`, `begin()`, then `run()`."""

    def __init__(self, job: ProducerJob, transport: Transport) -> None:
        self.job = job
        self.seconds: dict[str, float] = {}
        self._transport = transport
        self._forwarder = Forwarder(job.forward, job.device)
        self._bundles = bundles_of(job.readers)
        self._desk: Desk | None = None
        self._lock = Lock()
        self._published = self._late_passes = self._most = 0

    def load(self) -> ProducerStatus:
        """Load the model and try its hooks. Raises ModelError, SiteError, ConfigError."""
        torch.set_num_threads(self.job.threads)
        keep_freed_memory()
        with self._timed("load"), memory_errors(self.job.name, self.job.device):
            see_files(self.job, self.job.forward.model["name"])
            self._forwarder.load()
            self._forwarder.rehearse()
        return self.status()

    def begin(self, readers: Iterable[str]) -> None:
        """Tokens are there, and these readers are about to ask."""
        with memory_errors(self.job.name, self.job.device):
            portions = self._forwarder.begin()
        self._desk = Desk(portions, self.job.index, self.job.count, readers)

    def expect(self, readers: Iterable[str]) -> None:
        """See Desk.expect."""
        with self._lock:
            self.desk.expect(readers)

    def ask(self, reader: str, portion: int, cursor: int) -> bool:
        """See Desk.ask."""
        with self._lock:
            return self.desk.ask(reader, portion, cursor)

    def find(self, reader: str, portion: int) -> Parcel | None:
        """A portion that was asked for, if it is there."""
        with self._lock:
            parcel = self.desk.find(reader, portion)
        return parcel.for_reader(self.job.readers[cell_of(reader)]) if parcel else None

    def leave(self, reader: str) -> None:
        """See Desk.leave."""
        with self._lock:
            self.desk.leave(reader)

    def run(self) -> Iterator[bool]:
        """Work, a piece at a time; False where there was nothing to do. Without an end."""
        with memory_errors(self.job.name, self.job.device):
            while True:
                with self._lock:
                    turn = self.desk.turn()
                if turn is None:
                    yield False
                elif isinstance(turn.task, Forward):
                    yield from self._forward(turn, turn.task.lot)
                else:
                    self._publish(turn, turn.task.portion)
                    yield True

    def idle(self, seconds: float) -> None:
        """Count time in which all readers had what they could take."""
        self._count("credit", seconds)

    def waited(self, seconds: float) -> None:
        """Count time in which nobody asked this producer to go on."""
        self._count("wait", seconds)

    def status(self) -> ProducerStatus:
        return ProducerStatus(
            name=self.job.name,
            seconds=dict(self.seconds),
            forwards={**self._forwarder.counts, "late_passes": self._late_passes},
            published=self._published,
            most_stocked=self._most,
            resident_bytes=psutil.Process().memory_info().rss,
        )

    @property
    def desk(self) -> Desk:
        assert self._desk is not None, "begin() comes first"
        return self._desk

    def _forward(self, turn: Turn, lot: int) -> Iterator[bool]:
        """Run the model over a lot. One for readers that lag is left between two passes when there
        is something else to do, and gone on with later."""
        work = self._work(turn)
        with self._lock:
            self.desk.begin(turn)
        if work.lot != lot:
            work.lot, work.passes = lot, self._forwarder.run(lot, work.rows)
        while True:
            with self._timed("forward"):
                part = next(work.passes, _END)
            if part is _END:
                break
            self._late_passes += turn.late
            yield True
            if turn.late and self._pressed():
                return
        with self._lock:
            turn.stream.forwarded(lot)

    def _work(self, turn: Turn) -> _Work:
        if turn.stream.buffer is None:
            turn.stream.buffer = _Work()
        return turn.stream.buffer

    def _pressed(self) -> bool:
        with self._lock:
            return self.desk.pressing

    def _publish(self, turn: Turn, portion: int) -> None:
        with self._timed("publish"):
            rows = self._work(turn).rows.rows(portion)
            handles = {
                names: self._transport.publish({name: rows[name] for name in names})
                for names in self._bundles
            }
        with self._lock:
            turn.stream.published(portion, Parcel(portion, handles))
            self._most = max(self._most, self.desk.stocked)
        self._published += 1

    def _count(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._count(stage, time.monotonic() - began)


def cell_of(reader: str) -> str:
    return reader.rpartition("~")[0]
