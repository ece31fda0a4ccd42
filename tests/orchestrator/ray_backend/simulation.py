"""A cluster in one process, on a clock that only waiting moves: the real backend, bundles, head and
draining, with Ray itself made up. Whole machines die here at a given second, as they cannot where
the tests have one machine; what Ray really does then is in tests/ray and tests/cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from orchestrator.cells.job import CellJob
from orchestrator.cells.status import CellLost, CellStatus, Event, Place
from orchestrator.ray_backend import backend, bundles, draining, head


class Clock:
    """In the place of `time`. It never starts at 0: a node that drained then would not count."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass(eq=False)
class Ref:
    """An answer, from `at` on; it is an error if its actor is dead by then."""

    actor: Actor
    at: float
    status: CellStatus


@dataclass(eq=False)
class Actor:
    """Serves requests one after another, each of which takes its time."""

    world: World
    name: str
    free_at: float = 0.0
    asked: list[tuple[str, float]] = field(default_factory=list)  # what, and when
    trained_s: float = 0.0
    dirty: bool = False
    dead: exceptions.RayError | None = None

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: self._serve(name, *given))

    def _serve(self, what: str, *given: Any) -> Ref:
        clock = self.world.clock
        self.asked.append((what, clock.now))
        took = 0.0
        if what == "load":
            took = self.world.load_s
        elif what == "advance":
            took, self.dirty = given[0], True
            self.trained_s += took
        elif what == "checkpoint" and self.dirty:
            took, self.dirty = self.world.save_s, False
        self.free_at = max(clock.now, self.free_at) + took
        place = Place("node-of-" + self.name, "host", "0") if what == "load" else None
        return Ref(self, self.free_at, CellStatus(self.name, "training", 1, 1, place=place))

    def saves(self) -> list[float]:
        return [at for what, at in self.asked if what == "checkpoint"]


class World:
    """One cluster: scripted by its fields. group_whole: every bundle has a node; placeless: those
    bundles, by number, that have none. drains: the head's answer."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.load_s = self.save_s = 1.0
        self.head_up = self.group_whole = True
        self.placeless: set[int] = set()
        self.drains: dict[str, float] = {}
        self.head_asked: list[float] = []
        self.actors: list[Actor] = []
        for module in (backend, bundles, draining, head):
            patch.setattr(module, "time", self.clock)
        ray = SimpleNamespace(
            wait=self._wait,
            get=self._get,
            kill=lambda actor: None,
            exceptions=exceptions,
            nodes=lambda: [],
            cluster_resources=dict,
            available_resources=dict,
            get_runtime_context=lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"),
        )
        for module in (backend, bundles, head):
            patch.setattr(module, "ray", ray)
        patch.setattr(bundles, "placement_group", lambda *given, **named: self._group())
        patch.setattr(bundles, "placement_group_table", self._table)
        patch.setattr(bundles, "PlacementGroupSchedulingStrategy", lambda *given, **named: None)
        patch.setattr(backend, "trainer_actor", self._actor)
        joined = SimpleNamespace(lines=[], check_stores=lambda jobs: [])
        patch.setattr(backend.Cluster, "join", lambda run, address: joined)
        patch.setattr(head, "init_grpc_channel", Channel)
        patch.setattr(head, "_answers", lambda channel: self._head_answers())
        patch.setattr(head.Head, "draining", lambda head: self.drains if self.head_up else {})

    def run(self, *names: str) -> backend.RayBackend:
        """A backend whose cells, each on a GPU of its own, have been started."""
        ours = backend.RayBackend("10.0.0.1:6379")
        ours.start("run", [_job(name, index) for index, name in enumerate(names)], [])
        return ours

    def actor(self, name: str) -> Actor:
        """The newest process of a cell."""
        return next(actor for actor in reversed(self.actors) if actor.name == name)

    def kill(self, name: str, error: exceptions.RayError | None = None) -> None:
        self.actor(name).dead = error or exceptions.ActorUnavailableError("rpc", bytes(16))

    def pass_s(self, ours: backend.RayBackend, seconds: float) -> list[Event]:
        """Wait for events for so long, as the driver does: cells that are lost are replaced."""
        events: list[Event] = []
        end, rounds = self.clock.now + seconds, 0
        while self.clock.now < end:
            rounds += 1
            assert rounds < 100 + 20 * seconds, "it runs in circles, and no time passes"
            heard = ours.wait()
            assert heard is not None, "everybody has ended"
            for event in heard:
                events.append(event)
                if isinstance(event, CellLost):
                    ours.replace(event.cell)
        return events

    def _actor(self, job: CellJob, run: str, start: int, **options: Any) -> Actor:
        assert self.head_up, "Ray asks the head for an actor with a name, and waits for ever"
        self.actors.append(Actor(self, job.name))
        return self.actors[-1]

    def _wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], None]:
        due = min(refs, key=self._due)
        self.clock.now = max(self.clock.now, min(self.clock.now + timeout, self._due(due)))
        return [due] * (self._due(due) <= self.clock.now), None

    def _due(self, ref: Ref) -> float:
        return self.clock.now if ref.actor.dead else ref.at

    def _get(self, ref: Ref) -> CellStatus:
        if ref.actor.dead:
            raise ref.actor.dead
        return ref.status

    def _group(self) -> Any:
        return SimpleNamespace(wait=lambda timeout: self.group_whole)

    def _table(self, group: Any) -> dict[str, Any]:
        nodes = {index: "" if index in self.placeless else "a-node" for index in range(9)}
        return {"bundles_to_node_id": nodes}

    def _head_answers(self) -> bool:
        self.head_asked.append(self.clock.now)
        return self.head_up


class Channel:
    """To the head, with nothing in it."""

    def __init__(self, address: str, options: Any) -> None:
        pass

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _job(name: str, index: int) -> CellJob:
    job = object.__new__(CellJob)
    known = {"name": name, "device": f"cuda:{index}", "gpu_share": 1.0, "memory_bytes": 1}
    for field_name, value in (known | {"threads": 1}).items():
        object.__setattr__(job, field_name, value)
    return job
