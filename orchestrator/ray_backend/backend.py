"""The Ray form of `Backend`: one actor for each cell, in one bundle of a placement group."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtc_core.errors import ConfigError
from orchestrator.cells.job import CellJob
from orchestrator.cells.status import CellStatus, Event
from orchestrator.failures import Stopped
from orchestrator.manifest import Manifest
from orchestrator.planning.inventory import Inventory, take_inventory
from orchestrator.ray_backend.cluster import Cluster  # before ray: it sets what ray reads first

import ray  # isort: skip
from orchestrator.ray_backend.actor import trainer_actor  # isort: skip
from orchestrator.ray_backend.bundles import LIMIT_S, Bundles  # isort: skip
from orchestrator.ray_backend.explain import explained, lost_cell  # isort: skip

SLICE_S = 1.0  # how long an actor works on one request
AHEAD = 2  # requests that wait at an actor, so that it never does
POLL_S = 0.5
STOP_S = 600.0


@dataclass(slots=True)
class _Running:
    """An actor and its unanswered requests, oldest first."""

    job: CellJob
    actor: Any
    refs: deque[ray.ObjectRef] = field(default_factory=deque)
    loaded: bool = False


class RayBackend:
    """Cells as actors of a Ray that `start` begins, or of the cluster at `address`."""

    name = "ray"

    def __init__(
        self, address: str | None = None, dashboard: bool = True, placement_s: float = LIMIT_S
    ) -> None:
        self._address, self._dashboard, self._placement_s = address, dashboard, placement_s
        self._cluster: Cluster | None = None
        self._bundles: Bundles | None = None
        self._jobs: dict[str, CellJob] = {}
        self._running: dict[str, _Running] = {}
        self._begun: dict[str, int] = {}
        self._run = ""
        self._tokens_there = False
        self._stopping = False
        self._slice_s = SLICE_S
        self._heard: list[Event] = []

    def inventory(self, root: Path, manifest: Manifest) -> Inventory:
        device, cells = manifest.resources.device, manifest.resources.cells
        if self._address is None:
            return take_inventory(root, device, cells)
        if ":" in device:
            raise ConfigError(
                f"resources.device: {device} names a GPU of this machine, and with --address Ray "
                "chooses: use cuda"
            )
        return self._joined(manifest.name).inventory(take_inventory(root), device)

    def start(self, run: str, jobs: Sequence[CellJob]) -> list[str]:
        self._run = run
        self._jobs = {job.name: job for job in jobs}
        self._slice_s = max(SLICE_S, 0.1 * len(jobs))  # the driver has all of them to answer
        if self._address is None:
            self._cluster = Cluster.start(run, jobs, self._dashboard)
        cluster = self._joined(run)
        self._bundles = Bundles(run, jobs, self._placement_s)
        for job in jobs:
            self._begin(job)
        return cluster.lines

    def check(self) -> None:
        if self._bundles:
            self._bundles.check()
        self._heard += self._answers(timeout_s=0)

    def wait(self) -> list[Event] | None:
        if not self._running and not self._heard:
            return None
        if not self._tokens_there:
            self._tokens_there = True
            for running in self._running.values():
                self._ask(running)
        assert self._bundles, "start() comes first"
        self._bundles.check()
        heard, self._heard = self._heard, []
        return heard + self._answers(POLL_S)

    def replace(self, cell: str) -> None:
        assert self._bundles, "start() comes first"
        self._bundles.expect()
        self._begin(self._jobs[cell])

    def stop(self) -> list[Event]:
        self._stopping = True
        for name, running in [*self._running.items()]:
            if running.loaded:
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

    def _begin(self, job: CellJob) -> None:
        assert self._bundles
        number = self._begun[job.name] = self._begun.get(job.name, 0) + 1
        name = job.name if number == 1 else f"{job.name}~{number}"  # the last one's may be taken
        actor = trainer_actor(job, self._run, name=name, **self._bundles.options(job))
        running = self._running[job.name] = _Running(job, actor)
        running.refs.append(actor.load.remote())
        if self._tokens_there:
            self._ask(running)

    def _ask(self, running: _Running) -> None:
        while len(running.refs) < AHEAD:
            running.refs.append(running.actor.advance.remote(self._slice_s))

    def _answers(self, timeout_s: float) -> list[Event]:
        oldest = {running.refs[0]: running for running in self._running.values() if running.refs}
        if not oldest:
            return []
        done, _ = ray.wait(list(oldest), num_returns=1, timeout=timeout_s)
        return [self._answer(oldest[ref]) for ref in done]

    def _answer(self, running: _Running) -> Event:
        try:
            status: CellStatus = ray.get(running.refs.popleft())
        except ray.exceptions.RayError as error:
            del self._running[running.job.name]
            with suppress(ray.exceptions.RayError):
                ray.kill(running.actor)  # one that is merely silent must not come back
            if lost := lost_cell(running.job.name, error):
                return lost
            raise explained(running.job.name, error) from None
        running.loaded = True
        if self._stopping:
            return status
        if status.phase == "done":
            del self._running[running.job.name]
            ray.kill(running.actor)
        elif self._tokens_there:
            self._ask(running)
        return status
