"""A cell's line to a producer, whatever Ray says of it. Ray is made up here: what its real one says
when, can only be had by accident.
"""

from __future__ import annotations

from typing import Any

import pytest
from ray import exceptions

from orchestrator.exchange.line import LineLost
from orchestrator.exchange.transport import Parcel
from orchestrator.ray_backend import ray_line
from orchestrator.ray_backend.ray_line import RayLine

START = 3
UNAVAILABLE = exceptions.ActorUnavailableError("rpc", bytes(16))
KILLED = (
    exceptions.ActorDiedError(),
    exceptions.NodeDiedError("x"),
    exceptions.OutOfMemoryError("killed by the monitor of its node"),
)
LOST = (exceptions.ObjectLostError("00", "", ""), exceptions.OwnerDiedError("00", "", ""))


class Ref:
    """Of an answer, or an error; None: not there yet."""

    def __init__(self, content: Any = None) -> None:
        self.content = content


class MadeUpRay:
    def wait(self, refs, num_returns=1, timeout=0.0):
        there = [ref for ref in refs if ref.content is not None][:num_returns]
        return there, [ref for ref in refs if ref not in there]

    def get(self, refs):
        if isinstance(refs, list):
            return [self.get(ref) for ref in refs]
        if isinstance(refs.content, Exception):
            raise refs.content
        return refs.content


class MadeUpProducer:
    """Answers `take` with what `answers` has for a portion at that time."""

    def __init__(self) -> None:
        self.answers: dict[int, Ref] = {}
        self.asked: list[tuple[int, int]] = []
        self.take = self

    def remote(self, reader, portion, cursor):
        self.asked.append((portion, cursor))
        return self.answers.setdefault(portion, Ref())


class Handed:
    def open(self, content, device):
        return content


@pytest.fixture
def producer(monkeypatch):
    monkeypatch.setattr(ray_line, "ray", MadeUpRay())
    monkeypatch.setattr(ray_line, "POLL_S", 0.0)
    return MadeUpProducer()


@pytest.fixture
def line(producer):
    line = RayLine(producer, START, "cell~1", "cpu")
    line._transport = Handed()
    return line


def parcel(portion: int, *bundles: Ref) -> tuple[int, Parcel]:
    handles = bundles or (Ref({"a": portion}),)
    return START, Parcel(portion, {(str(n),): handle for n, handle in enumerate(handles)})


@pytest.mark.parametrize("error", [UNAVAILABLE, *KILLED, *LOST])
def test_what_is_wrong_with_the_next_portion_is_told_when_that_one_is_taken(line, producer, error):
    producer.answers = {5: Ref(parcel(5)), 6: Ref(error)}
    line.ask(5, 5)
    line.ask(6, 5)
    assert line.take(5) == {"a": 5}
    if error in KILLED:
        with pytest.raises(LineLost):
            line.take(6)
    else:
        producer.answers[6] = Ref(parcel(6))
        assert line.take(6) is None and line.take(6) == {"a": 6}


@pytest.mark.parametrize("error", [UNAVAILABLE, *LOST])
def test_a_producer_that_may_be_there_again_is_asked_anew_for_all(line, producer, error):
    producer.answers = {5: Ref(parcel(5, Ref(error))), 6: Ref(parcel(6))}
    line.ask(5, 5)
    line.ask(6, 5)
    assert line.take(5) is None
    assert sorted(producer.asked) == [(5, 5), (5, 5), (6, 5), (6, 5)]
    producer.answers[5] = Ref(parcel(5))
    assert line.take(5) is None  # the second answer was the same
    assert line.take(5) == {"a": 5} and line.take(6) == {"a": 6}


@pytest.mark.parametrize("error", LOST)
def test_rows_that_stay_lost_end_the_run_and_are_not_asked_for_without_end(
    line, producer, error, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(ray_line.time, "monotonic", lambda: now[0])
    producer.answers = {5: Ref(parcel(5, Ref(error)))}
    line.ask(5, 5)
    for now[0] in (0.0, 30.0, 59.0):
        assert line.take(5) is None
    now[0] = 61.0
    with pytest.raises(type(error)):
        line.take(5)


@pytest.mark.parametrize("error", KILLED)
def test_a_producer_that_is_dead_is_a_lost_line(line, producer, error):
    producer.answers = {5: Ref(error)}
    line.ask(5, 5)
    with pytest.raises(LineLost):
        line.take(5)


@pytest.mark.parametrize("answer", [(START, None), (START - 1, parcel(5)[1])])
def test_of_another_start_or_to_one_that_has_left_nothing_is_taken(line, producer, answer):
    producer.answers = {5: Ref(answer)}
    line.ask(5, 5)
    for _ in range(2):
        with pytest.raises(LineLost):
            line.take(5)


def test_rows_that_are_still_on_their_way_are_waited_for_and_not_asked_for_anew(line, producer):
    slow = Ref()
    producer.answers = {5: Ref(parcel(5, Ref({"a": 1}), slow))}
    line.ask(5, 5)
    assert line.take(5) is None and line.take(5) is None
    slow.content = {"b": 2}
    assert line.take(5) == {"a": 1, "b": 2}
    assert producer.asked == [(5, 5)]
