"""Who is connected to whom, and begun when, in whatever order processes load and die. Actors are
made up: they write down what they are asked."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.cells.job import CellJob, ProducerJob
from orchestrator.ray_backend.links import Links, Running


class MadeUpActor:
    def __init__(self) -> None:
        self.told: list[tuple] = []

    def __getattr__(self, name: str) -> Any:
        class Method:
            def remote(_, *given):
                self.told.append((name, *given))
                return (name, *given)

        return Method()


class Crew:
    """P, a producer, and A and B, cells; what a backend does with them."""

    def __init__(self) -> None:
        self.links, self.running, self.starts = Links(fed=True), {}, dict.fromkeys("PAB", 0)
        for name in "PAB":
            self.begin(name)

    def begin(self, name: str) -> None:
        """A process is started, or started anew."""
        kind = ProducerJob if name == "P" else CellJob
        job = object.__new__(kind)
        object.__setattr__(job, "name", name)
        if name == "P":
            object.__setattr__(job, "index", 0)
        self.starts[name] += 1
        self.running[name] = Running(job, MadeUpActor(), self.starts[name])

    def load(self, *names: str) -> None:
        for name in names:
            self.running[name].loaded = True
            self.go_on()

    def die(self, name: str) -> None:
        self.links.forget(self.running.pop(name), self.running.values())

    def go_on(self) -> None:
        """Those that are begun now."""
        self.links.begin(self.running.values())

    def told(self, name: str) -> list[tuple]:
        return self.running[name].actor.told


@pytest.fixture
def crew():
    return Crew()


def test_all_begin_when_the_last_has_loaded_and_the_beginning_is_answered(crew):
    crew.load("P", "A")
    assert not crew.told("P") and not crew.told("A")
    crew.load("B")
    assert crew.told("P") == [("begin", ["A~1", "B~1"])]
    assert list(crew.running["P"].refs) == crew.told("P")  # so that its errors come out
    for name in "AB":
        assert crew.told(name) == [("connect", 0, crew.running["P"].actor, 1, f"{name}~1")]


def test_a_producer_that_dies_before_anybody_has_begun_is_begun_when_it_is_there(crew):
    crew.load("A")
    crew.die("P")
    crew.go_on()
    crew.begin("P")
    crew.load("P")
    crew.load("B")
    assert crew.told("P") == [("begin", ["A~1", "B~1"])]
    for name in "AB":
        assert crew.told(name) == [("connect", 0, crew.running["P"].actor, 2, f"{name}~1")]


def test_whoever_is_replaced_is_connected_and_the_others_hear_of_it(crew):
    crew.load("P", "A", "B")
    crew.die("A")
    assert crew.told("P")[-1] == ("leave", "A~1")
    crew.begin("A")
    crew.load("A")
    assert crew.told("P")[-1] == ("expect", ["A~2"])
    assert crew.told("A") == [("connect", 0, crew.running["P"].actor, 1, "A~2")]
    crew.die("P")
    crew.begin("P")
    crew.load("P")
    assert crew.told("P") == [("begin", ["A~2", "B~1"])] or (
        crew.told("P") == [("begin", ["B~1", "A~2"])]
    )
    for name in "AB":
        assert crew.told(name)[-1][:4] == ("connect", 0, crew.running["P"].actor, 2)
