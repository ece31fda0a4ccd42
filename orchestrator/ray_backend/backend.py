"""The Ray form of `Backend`: an actor for each cell and each producer, in bundles of a placement
group."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mtc_core.errors import ConfigError
from orchestrator.cells.job import CellJob, Job, ProducerJob
from orchestrator.cells.status import CellStatus, Event, Notice, ProducerStatus
from orchestrator.failures import Stopped
from orchestrator.manifest import Manifest
from orchestrator.planning.inventory import Inventory, take_inventory
from orchestrator.ray_backend.cluster import Cluster  # before ray: it sets what ray reads first

import ray  # isort: skip
from orchestrator.ray_backend.actor import trainer_actor  # isort: skip
from orchestrator.ray_backend.bundles import LIMIT_S, Bundles  # isort: skip
from orchestrator.ray_backend.draining import Draining  # isort: skip
from orchestrator.ray_backend.explain import explained, lost_cell  # isort: skip
from orchestrator.ray_backend.head import Head  # isort: skip
from orchestrator.ray_backend.links import Links, Running  # isort: skip
from orchestrator.ray_backend.producer_actor import producer_actor  # isort: skip

SLICE_S = 1.0  # how long an actor works on one request
AHEAD = 2  # requests that wait at an actor, so that it never does
POLL_S = 0.5
STOP_S = 600.0
log = logging.getLogger("mtc")


class RayBackend:
    """Cells as actors of a Ray that `start` begins, or of the cluster at `address`."""

    name, trains_here = "ray", False

    def __init__(
        self, address: str | None = None, dashboard: bool = True, placement_s: float = LIMIT_S
    ) -> None:
        self._address, self._dashboard, self._placement_s = address, dashboard, placement_s
        self._cluster: Cluster | None = None
        self._head: Head | None = None
        self._bundles: Bundles | None = None
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, Running] = {}
        self._lost: list[str] = []  # to be begun anew
        self._starts: Counter[str] = Counter()
        self._links = Links(fed=False)
        self._draining: Draining | None = None
        self._run = ""
        self._tokens_there = False
        self._stopping = False
        self._slice_s = SLICE_S
        self._heard: list[Event] = []

    def inventory(self, root: Path, manifest: Manifest) -> Inventory:
        device = manifest.resources.device
        if self._address is None:
            return take_inventory(root, device)
        if ":" in device:
            raise ConfigError(
                f"resources.device: {device} names a GPU of this machine, and with --address Ray "
                "chooses: use cuda"
            )
        return self._joined(manifest.name).inventory(take_inventory(root), device)

    def start(
        self, run: str, cells: Sequence[CellJob], producers: Sequence[ProducerJob]
    ) -> list[str]:
        jobs: list[Job] = [*producers, *cells]
        self._run = run
        self._jobs = {job.name: job for job in jobs}
        self._links = Links(fed=bool(producers))
        self._slice_s = max(SLICE_S, 0.1 * len(jobs))  # the driver has all of them to answer
        if self._address is None:
            self._cluster = Cluster.start(run, jobs, self._dashboard)
        cluster = self._joined(run)
        lines = [*cluster.lines, *cluster.check_stores(jobs)]
        self._head = head = Head()
        self._bundles, self._draining = Bundles(run, jobs, head, self._placement_s), Draining(head)
        for job in jobs:
            self._begin(job)
        return lines

    def check(self) -> None:
        if self._bundles:
            self._look_around()
        self._heard += self._answers(timeout_s=0)

    def wait(self) -> list[Event] | None:
        if not self._running and not self._heard and not self._lost:
            return None
        if not self._tokens_there:
            self._tokens_there = True
            self._go_on()
        self._look_around()
        self._begin_anew()
        self._save_what_drains()
        heard, self._heard = self._heard, []
        return heard + self._answers(POLL_S)

    def replace(self, name: str) -> None:
        self._lost.append(name)

    def stop(self) -> list[Event]:
        self._stopping = True
        for name, running in [*self._running.items()]:
            if running.loaded and isinstance(running.job, CellJob):
                running.refs.append(running.actor.checkpoint.remote())
            else:  # it has nothing to save, and may never find a place
                ray.kill(self._running.pop(name).actor)
        events, self._heard = self._heard, []
        errors: list[Exception] = []
        deadline = time.monotonic() + STOP_S
        while any(running.refs for running in self._running.values()):
            if time.monotonic() > deadline:
                raise Stopped(f"{', '.join(self._running)} did not save within {STOP_S:.0f} s")
            try:
                events += self._answers(POLL_S)  # short: a second signal must find us in Python
            except Exception as error:  # the others are to save all the same
                errors.append(error)
        if errors:
            raise errors[0]
        return events

    def close(self, clean: bool) -> None:
        if self._cluster is None:
            return
        with suppress(Exception):  # whatever Ray has to say, it must be left
            for running in self._running.values():
                ray.kill(running.actor)
            if self._bundles:
                self._bundles.remove()
        self._running = {}
        self._cluster.leave(clean)
        self._cluster = None

    def _joined(self, run: str) -> Cluster:
        if self._cluster is None:
            assert self._address is not None
            self._cluster = Cluster.join(run, self._address)
        return self._cluster

    def _begin(self, job: Job) -> None:
        assert self._bundles
        self._starts[job.name] += 1
        start = self._starts[job.name]
        name = job.name if start == 1 else f"{job.name}~{start}"  # the last one's may be taken
        options = {"name": name, **self._bundles.options(job)}
        if isinstance(job, ProducerJob):
            actor = producer_actor(job, self._run, start, **options)
        else:
            assert isinstance(job, CellJob)
            actor = trainer_actor(job, self._run, start, **options)
        running = self._running[job.name] = Running(job, actor, start)
        running.refs.append(actor.load.remote())
        if self._tokens_there:
            self._go_on()

    def _look_around(self) -> None:
        """Raise what ails the cluster: its head is gone, or it has no room for who comes up."""
        assert self._head and self._bundles, "start() comes first"
        self._head.check(now=bool(self._lost))
        self._bundles.check([n for n, running in self._running.items() if not running.loaded])

    def _begin_anew(self) -> None:
        """Whoever was lost, once the head is known to be there. A cell may have died with the
        head's machine, and an actor with a name asks a dead head for ever: nobody else would be
        saved. So an answer from before the loss is none."""
        assert self._head and self._bundles
        if self._lost and self._head.answers:
            self._bundles.expect()
            for name in self._lost:
                self._begin(self._jobs[name])
            self._lost = []

    def _go_on(self) -> None:
        """Have everybody work who can."""
        for running in self._links.begin(self._running.values()):
            self._ask(running)

    def _save_what_drains(self) -> None:
        """Cells of a node that is about to be taken away save now, and again until it is."""
        assert self._draining, "start() comes first"
        leaving = self._draining.look()
        for name, running in self._running.items():
            if running.node not in leaving or not isinstance(running.job, CellJob):
                continue
            idle = running.begun and running.saving is None  # more would only queue up
            if idle and self._draining.due(name, running.node):
                running.saving = running.actor.checkpoint.remote()
                running.refs.append(running.saving)
                text = f"{name} saves: its node is to be taken away {leaving[running.node]}"
                self._heard.append(Notice(text))

    def _ask(self, running: Running) -> None:
        while len(running.refs) < AHEAD:
            running.refs.append(running.actor.advance.remote(self._slice_s))

    def _answers(self, timeout_s: float) -> list[Event]:
        oldest = {running.refs[0]: running for running in self._running.values() if running.refs}
        if not oldest:
            time.sleep(timeout_s)  # the head is silent, and everybody is lost
            return []
        done, _ = ray.wait(list(oldest), num_returns=1, timeout=timeout_s)
        return [event for ref in done if (event := self._answer(oldest[ref]))]

    def _answer(self, running: Running) -> Event | None:
        name = running.job.name
        ref = running.refs.popleft()
        try:
            status: CellStatus | ProducerStatus = ray.get(ref)
        except ray.exceptions.RayError as error:
            del self._running[name]
            with suppress(ray.exceptions.RayError):
                ray.kill(running.actor)  # one that is merely silent must not come back
            self._links.forget(running, self._running.values())
            if running.ending:
                return None
            if lost := lost_cell(name, error):
                return lost
            raise explained(name, error) from None
        running.loaded = True
        self._count_save(running, ref)
        if status.place:
            running.node = status.place.node
            gpu = f", GPU {status.place.gpu}" if status.place.gpu else ""
            log.info("%s runs on %s%s", name, status.place.host, gpu)
        if self._stopping:
            return status
        if running.ending or (isinstance(status, CellStatus) and status.phase == "done"):
            self._end(running)
        elif running.begun:
            self._ask(running)
        elif self._tokens_there:
            self._go_on()
        return status

    def _count_save(self, running: Running, answered: ray.ObjectRef) -> None:
        """If the answer is that of a save: it took as long as the one before it is ago, since
        requests are served one after another, and never is there none before it."""
        now, before = time.monotonic(), running.answered_at
        running.answered_at = now
        if running.saving is answered:
            assert self._draining
            running.saving = None
            self._draining.saved(running.job.name, now - before)

    def _end(self, done: Running) -> None:
        del self._running[done.job.name]
        ray.kill(done.actor)
        self._links.forget(done, self._running.values())
        left = [running.job for running in self._running.values()]
        left += [self._jobs[name] for name in self._lost]
        if not any(isinstance(job, CellJob) for job in left):
            self._lost = []
            for name, producer in list(self._running.items()):  # there is nobody left to feed
                if not producer.loaded:
                    ray.kill(self._running.pop(name).actor)
                elif not producer.ending:
                    producer.ending = True
                    producer.refs = deque([producer.actor.end.remote()])
