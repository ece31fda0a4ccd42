"""Room for every cell at once: one bundle of a placement group for each, or a clear shortfall."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mtc_core.errors import ConfigError
from orchestrator.cell import CellJob
from orchestrator.preflight import human_bytes
from orchestrator.ray_backend.cluster import cpus, gpus, namespace

LIMIT_S = 60.0


class Bundles:
    """The placement group of one run. Its bundles become free with `remove`."""

    def __init__(self, run: str, jobs: Sequence[CellJob], limit_s: float = LIMIT_S) -> None:
        self._bundles = [resources(job) for job in jobs]
        self._index = {job.name: index for index, job in enumerate(jobs)}
        self._group: PlacementGroup = placement_group(
            self._bundles, strategy="PACK", name=namespace(run)
        )
        self._limit_s = limit_s
        self.expect()

    def expect(self) -> None:
        """From now on the room has to be there within the limit."""
        self._placed, self._deadline = False, time.monotonic() + self._limit_s

    def check(self) -> None:
        """Raise ConfigError, which names the shortfall, when there is no room after the limit."""
        if self._placed:
            return
        self._placed = bool(self._group.wait(0))
        if not self._placed and time.monotonic() > self._deadline:
            raise ConfigError(self._shortfall())

    def options(self, job: CellJob) -> dict[str, object]:
        """For the actor of a cell."""
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
        remove_placement_group(self._group)

    def _shortfall(self) -> str:
        asked = Counter(map(_words, self._bundles))
        needs = " and ".join(
            f"{count} × ({bundle})" if count > 1 else bundle for bundle, count in asked.items()
        )
        there, free = ray.cluster_resources(), ray.available_resources()
        names = [name for name in ("CPU", "GPU", "memory") if name in self._bundles[0]]
        has = ", ".join(f"{_amount(name, free)} of {_amount(name, there)} free" for name in names)
        return (
            f"the Ray cluster has no room for {len(self._bundles)} cells, after {self._limit_s:.0f}"
            f" s: they need {needs}, each on one node; the {len(ray.nodes())} nodes have {has}. "
            "Wait for other jobs or add nodes, lower resources.cells, or lower resources.threads "
            "for a run that has not begun"
        )


def resources(job: CellJob) -> dict[str, float]:
    """What Ray sets aside for a cell: bookkeeping, not a limit."""
    gpu = {"GPU": gpus(job)} if gpus(job) else {}
    return {"CPU": cpus(job), **gpu, "memory": 0 if gpu else job.memory_bytes}


def _words(bundle: dict[str, float]) -> str:
    return " + ".join(_amount(name, bundle) for name in bundle if bundle[name])


def _amount(name: str, of: dict[str, float]) -> str:
    count = of.get(name, 0)
    return f"{human_bytes(count)} memory" if name == "memory" else f"{count:g} {name}"
