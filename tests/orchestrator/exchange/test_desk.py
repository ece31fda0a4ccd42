"""Who gets what and when, whatever the order in which producers and readers come to move."""

from __future__ import annotations

import random

import pytest

from orchestrator.exchange.desk import PATIENCE
from tests.orchestrator.exchange.simulation import World
from tests.orchestrator.exchange.test_portions import portions

SEEDS = range(40)


def some_world(seed: int, starts: list[int] | None = None) -> World:
    rng = random.Random(seed)
    p = portions(rng.randint(1, 30), rng.randint(1, 5), rng.randint(1, 4), rng.randint(1, 4))
    begin = [0] * rng.randint(1, 4) if starts is None else starts
    return World(p, rng.randint(1, 3), begin, rng.randint(1, 6), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_readers_that_begin_together_share_every_forward_and_every_portion(seed: int) -> None:
    world = some_world(seed)
    world.run()
    for reader in world.readers:
        assert reader.taken == list(range(world.portions.end))
    assert sorted(world.forwarded) == [(lot, False) for lot in range(world.portions.lots)]
    assert world.most_stocked <= world.window
    assert not any(desk.stocked for desk in world.desks)


@pytest.mark.parametrize("seed", SEEDS)
def test_readers_that_begin_apart_wait_for_the_last_and_share_as_well(seed: int) -> None:
    """As after an interruption: each goes on from a checkpoint of its own."""
    rng = random.Random(seed)
    world = some_world(seed, [rng.randint(0, 3) for _ in range(3)])
    starts = [reader.cursor for reader in world.readers]
    world.run()
    for start, reader in zip(starts, world.readers, strict=True):
        assert reader.taken == list(range(start, world.portions.end))
    lots = [lot for lot, late in world.forwarded if not late]
    assert len(lots) == len(set(lots)) == len(world.forwarded)
    assert min(lots, default=0) >= world.portions.lot_of(min(starts))
    assert world.most_stocked <= world.window


@pytest.mark.parametrize("seed", SEEDS)
def test_one_that_needs_nothing_of_a_producer_does_not_keep_it_from_the_others(seed: int) -> None:
    """It goes on from its last step, another from far before: the few portions that are left may
    be of other producers."""
    rng = random.Random(seed)
    p = portions(rng.randint(1, 30), rng.randint(1, 5), rng.randint(1, 2), rng.randint(1, 2))
    starts = [rng.randint(0, p.end - 1) for _ in range(3)]
    world = World(p, rng.randint(1, 8), starts, rng.randint(1, 6), seed)
    world.run()
    for start, reader in zip(starts, world.readers, strict=True):
        assert reader.taken == list(range(start, p.end))


@pytest.mark.parametrize("seed", SEEDS)
def test_one_that_falls_behind_is_served_and_holds_nobody_up(seed: int) -> None:
    world = some_world(seed, [0, 0])
    world.run(moves=world.random.randint(0, 200))
    behind, ahead = world.readers
    start = world.random.randint(0, behind.cursor)
    late = world.restarted(behind, start)
    world.readers = [ahead]  # the other has to load first
    world.run()
    assert ahead.taken == list(range(world.portions.end))
    world.readers = [late]
    world.run()
    assert late.taken == list(range(start, world.portions.end))
    assert world.most_stocked <= 2 * world.window


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_dies_and_however_often_each_reader_gets_all_that_it_needs(seed: int) -> None:
    world = some_world(seed, [0] * random.Random(seed).randint(1, 3))
    for _ in range(world.random.randint(1, 6)):
        world.run(moves=world.random.randint(1, 80))
        index = world.random.randrange(len(world.readers))
        reader = world.readers[index]
        if world.random.random() < 0.5 and not reader.done:
            start = world.random.randint(0, reader.cursor)
            world.readers[index] = world.restarted(reader, start)
        else:
            world.restart_producer(world.random.randrange(len(world.desks)))
    begun = [reader.cursor - len(reader.taken) for reader in world.readers]
    world.run()
    for start, reader in zip(begun, world.readers, strict=True):
        assert reader.taken == list(range(start, world.portions.end))
    assert world.most_stocked <= 3 * world.window


def test_a_laggard_is_served_by_forwards_of_its_own_until_it_has_caught_up() -> None:
    world = World(portions(40, 2), 1, [0, 0], window=2, seed=1)
    desk = world.desks[0]
    ahead, behind = world.readers
    while ahead.cursor < 20 or behind.cursor < 20:
        world.run(moves=10)
    assert not desk.lagging
    forwards = len(world.forwarded)
    late = world.restarted(behind, 10)
    world.readers = [late]  # the other one is slow, and does not move
    late.move()
    while world.sent:
        world.deliver()
    assert desk.lagging
    held = ahead.cursor
    world.run(moves=600)
    assert late.cursor >= held and not desk.lagging
    again = [lot for lot, was_late in world.forwarded[forwards:] if was_late]
    assert again == list(range(5, world.portions.lot_of(held) + 1))[: len(again)] and again
    world.readers = [ahead, late]
    world.run()
    assert late.taken == list(range(10, world.portions.end))


def test_the_next_lot_is_run_before_anybody_asks_for_it_and_no_more_than_one() -> None:
    world = World(portions(40, 2), 1, [0], window=2, seed=1)
    world.readers[0].move()  # asks for two, takes none
    while world.sent:
        world.deliver()
    for _ in range(20):
        world._work(world.desks[0])
    assert world.forwarded == [(0, False), (1, False)]
    assert world.desks[0].stocked == 2


def test_nothing_is_run_before_all_who_are_expected_have_spoken() -> None:
    world = World(portions(40, 2), 1, [0, 0], window=2, seed=1)
    desk = world.desks[0]
    world.readers[0].move()
    while world.sent:
        world.deliver()
    assert desk.turn() is None
    desk.leave(world.readers[1].name)  # it died while it loaded
    assert desk.turn() is not None


def test_one_that_has_spoken_before_it_was_announced_is_not_waited_for() -> None:
    world = World(portions(40, 2), 1, [0], window=2, seed=1)
    world.run(moves=30)
    new = world.restarted(world.readers[0], 0)
    world.readers = [new]
    new.move()
    while world.sent:
        world.deliver()
    world.desks[0].expect([new.name])
    world.run()
    assert new.taken == list(range(world.portions.end))


def test_those_that_were_lost_together_share_their_forwards_again() -> None:
    world = World(portions(40, 2), 1, [0, 0], window=2, seed=1)
    world.run(moves=150)
    first, second = (reader.cursor for reader in world.readers)
    assert min(first, second) > 4
    forwards = len(world.forwarded)
    later, sooner = (
        world.restarted(reader, at) for reader, at in zip(world.readers, (4, 1), strict=True)
    )
    world.desks[0].expect([later.name, sooner.name])
    world.readers = [later]
    world.run(moves=50)  # nothing is run for it alone
    assert len(world.forwarded) == forwards
    world.readers = [later, sooner]
    world.run()
    assert later.taken[0] == 4 and sooner.taken[0] == 1
    assert world.forwarded[forwards:] == [(lot, False) for lot in range(world.portions.lots)]


def test_where_the_forward_sets_the_pace_a_laggard_is_brought_up_first() -> None:
    """Readers ask at once for whatever there is, so that there is always something to run."""
    world = World(portions(200, 2), 1, [0, 0], window=4, seed=1)
    desk, (ahead, behind) = world.desks[0], world.readers

    def forward() -> bool:
        for _ in range(50):
            for reader in world.readers:
                reader.move()
            while world.sent:
                world.deliver()
        before = len(world.forwarded)
        while len(world.forwarded) == before:
            world._work(desk)
        return world.forwarded[-1][1]

    while ahead.cursor < 100:
        forward()
    late = world.restarted(behind, 20)
    world.readers = [ahead, late]
    reached = ahead.cursor
    turns = [forward() for _ in range(60)]
    assert turns[:PATIENCE] == [False] * PATIENCE and not desk.lagging
    assert sum(turns) <= (reached - 20) / 2 + PATIENCE + 2
    assert not any(turns[sum(turns) + PATIENCE + 2 :])


def test_a_reader_that_is_gone_gets_nothing() -> None:
    world = World(portions(40, 2), 1, [0], window=2, seed=1)
    world.readers[0].move()
    while world.sent:
        world.deliver()
    for _ in range(5):
        world._work(world.desks[0])
    desk, name = world.desks[0], world.readers[0].name
    assert desk.find(name, 0) == 0
    desk.leave(name)
    assert desk.find(name, 0) is None and desk.stocked == 0
    assert not desk.ask(name, 1, 0) and desk.turn() is None  # said before it was killed
