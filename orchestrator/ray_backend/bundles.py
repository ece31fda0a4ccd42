"""Room for everybody at once: one bundle of a placement group for each process on a CPU, and one
for each GPU, or a clear shortfall."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mtc_core.errors import ConfigError
from orchestrator.cells.job import CellJob, Job
from orchestrator.failures import Stopped
from orchestrator.ray_backend.cluster import cpus, gpus, namespace
from orchestrator.ray_backend.explain import PLACEMENT_GONE
from orchestrator.ray_backend.head import Head
from orchestrator.ray_backend.shortfall import Crew, shortfall

LIMIT_S = 60.0


class Bundles:
    """The placement group of one run. Its bundles become free with `remove`."""

    def __init__(self, run: str, jobs: Sequence[Job], head: Head, limit_s: float = LIMIT_S) -> None:
        places = [job.name if job.device == "cpu" else job.device for job in jobs]
        indices = {place: index for index, place in enumerate(dict.fromkeys(places))}
        self._index = {job.name: indices[place] for job, place in zip(jobs, places, strict=True)}
        cells = sum(isinstance(job, CellJob) for job in jobs)
        self._crew = Crew(cells, len(jobs) - cells)
        self._bundles = [
            _together([job for job in jobs if self._index[job.name] == index])
            for index in indices.values()
        ]
        self._group: PlacementGroup = placement_group(
            self._bundles, strategy="PACK", name=namespace(run)
        )
        self._limit_s = limit_s
        self._head = head
        self._placed = self._lost_one = False
        self._deadline = time.monotonic() + limit_s

    def expect(self) -> None:
        """A cell was lost, maybe with its node: from now on there has to be room within the limit
        once more."""
        self._placed, self._lost_one = False, True
        self._deadline = time.monotonic() + self._limit_s

    def check(self, coming_up: Collection[str]) -> None:
        """Raise what names the shortfall when there is no room after the limit: ConfigError, or
        Stopped if there had been. coming_up: who has not loaded yet. Without any nobody needs room:
        the group has the bundles of those that have ended, too, and is not whole once a node of
        theirs is gone, which harms nobody."""
        # Whatever needs a head would wait for one that is silent.
        if self._placed or not coming_up or not self._head.answers:
            return
        try:
            self._placed = bool(self._group.wait(0))
        except Exception as error:  # Ray's (2.60) has no type of its own
            if "does not exist" not in str(error):
                raise
            raise Stopped(PLACEMENT_GONE) from None
        late = not self._placed and time.monotonic() > self._deadline
        if late and not self._have_places(coming_up):
            raise (Stopped if self._lost_one else ConfigError)(self._shortfall())

    def options(self, job: Job) -> dict[str, Any]:
        """For the actor of a cell or a producer."""
        strategy = PlacementGroupSchedulingStrategy(
            self._group, placement_group_bundle_index=self._index[job.name]
        )
        bundle = resources(job)
        return {
            "num_cpus": bundle["CPU"],
            "num_gpus": bundle.get("GPU", 0),
            "memory": bundle["memory"],
            "scheduling_strategy": strategy,
        }

    def remove(self) -> None:
        if self._head.answers:
            remove_placement_group(self._group)

    def _have_places(self, names: Collection[str]) -> bool:
        """Whether each of these has a node, whatever the others lack: a large model may load for
        longer than the limit."""
        nodes = placement_group_table(self._group).get("bundles_to_node_id", {})
        return all(nodes.get(self._index[name]) for name in names)

    def _shortfall(self) -> str:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        has = ray.cluster_resources(), ray.available_resources()
        return shortfall(self._crew, self._bundles, nodes, *has, self._limit_s)


def resources(job: Job) -> dict[str, float]:
    """What Ray sets aside for a process: bookkeeping, not a limit."""
    gpu = {"GPU": job.gpu_share} if gpus(job) else {}
    return {"CPU": cpus(job), **gpu, "memory": 0 if gpu else job.memory_bytes}


def _together(jobs: Sequence[Job]) -> dict[str, float]:
    """A bundle for those that share a device, which is a whole GPU even where they leave some of
    it: so they are sure to get the same one."""
    total: Counter[str] = Counter()
    for job in jobs:
        total.update(resources(job))
    return {**total, "GPU": 1} if "GPU" in total else dict(total)
