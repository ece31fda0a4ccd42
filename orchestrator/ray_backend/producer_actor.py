"""The actor that runs the model for cells: a `Producer` in a process of its own.

Cells call `take` at any time, and wait in it; that is what its event loop is for. The model runs in
one thread beside it, a second or so at a time, as the driver asks for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from orchestrator.cells.job import ProducerJob
from orchestrator.cells.status import ProducerStatus
from orchestrator.ray_backend.actor import masked, place, see_gpu
from orchestrator.ray_backend.gauges import Gauges

if TYPE_CHECKING:
    from orchestrator.exchange.transport import Parcel

IDLE_S = 0.1
SPARE_CALLS = 100  # of the driver, beside those of cells
T = TypeVar("T")


class ActivationProducer:
    """One of the producers of a run. `start` counts the processes that have been it."""

    def __init__(self, job: ProducerJob, run: str, start: int) -> None:
        # Not where the driver would load torch with them.
        from orchestrator.exchange.producer import Producer
        from orchestrator.ray_backend.plasma import Plasma

        self._producer = Producer(replace(job, device=masked(job.device)), Plasma())
        self._start = start
        self._gauges = Gauges(run, job.name, start)
        self._thread = ThreadPoolExecutor(1)  # all that a GPU is asked is asked from here
        self._work: Iterator[bool] | None = None
        self._begun = asyncio.Event()
        self._asked = Event()
        self._waiting: dict[tuple[str, int], asyncio.Future[Parcel | None]] = {}
        self._answered_at: float | None = None

    def __repr__(self) -> str:
        return self._producer.job.name

    async def load(self) -> ProducerStatus:
        """See Producer.load."""
        see_gpu(self._producer.job, self._producer.job.device)
        return replace(await self._do(self._producer.load), place=place())

    async def begin(self, readers: list[str]) -> ProducerStatus:
        """See Producer.begin."""
        await self._do(lambda: self._producer.begin(readers))
        self._work = self._producer.run()
        self._begun.set()
        return self._producer.status()

    async def take(self, reader: str, portion: int, cursor: int) -> tuple[int, Parcel | None]:
        """A portion, once it is published; nothing for a reader that is gone."""
        await self._begun.wait()
        if not self._producer.ask(reader, portion, cursor):
            return self._start, None
        self._asked.set()
        new = asyncio.get_running_loop().create_future()
        future = self._waiting.setdefault((reader, portion), new)
        # Of all: one that has caught up by what it says now may have what it asked for before.
        self._hand_out()
        return self._start, await future

    async def expect(self, readers: list[str]) -> None:
        """See Producer.expect."""
        await self._begun.wait()
        self._producer.expect(readers)

    async def leave(self, reader: str) -> None:
        """A reader is done, or dead: it is waited for no longer."""
        await self._begun.wait()
        self._producer.leave(reader)
        for key in [key for key in self._waiting if key[0] == reader]:
            self._waiting.pop(key).set_result(None)
        self._asked.set()

    async def advance(self, seconds: float) -> ProducerStatus:
        """Work for so long."""
        await self._begun.wait()  # calls of an actor that waits in some may overtake each other
        loop = asyncio.get_running_loop()
        return await self._do(
            lambda: self._advance(seconds, lambda: loop.call_soon_threadsafe(self._hand_out))
        )

    async def end(self) -> ProducerStatus:
        """How it stands after all."""
        return self._producer.status()

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _advance(self, seconds: float, hand_out: Callable[[], Any]) -> ProducerStatus:
        assert self._work is not None, "begin() comes first"
        if self._answered_at is not None:
            self._producer.waited(time.monotonic() - self._answered_at)
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline:
            if next(self._work):
                hand_out()
                continue
            self._asked.wait(min(IDLE_S, deadline - now))
            self._asked.clear()
            self._producer.idle(time.monotonic() - now)
        status = self._producer.status()
        self._gauges.show(status)
        self._answered_at = time.monotonic()
        return status

    def _hand_out(self) -> None:
        """Answer all whose portion is there."""
        for key in list(self._waiting):
            if parcel := self._producer.find(*key):
                self._waiting.pop(key).set_result(parcel)


def producer_actor(job: ProducerJob, run: str, start: int, **options: Any) -> Any:
    """Start one; a handle. Ray must not restart it: the driver decides that (failures.py)."""
    remote = ray.remote(max_restarts=0, max_task_retries=0)(ActivationProducer)
    # Whoever waits in `take` counts: a window of every cell, and of some that were replaced.
    calls = max(1000, 4 * len(job.readers) * job.prefetch_steps + SPARE_CALLS)
    return remote.options(max_concurrency=calls, **options).remote(job, run, start)
