"""How often cells save on a node that is to be taken away. Ray is made up (simulation.py): nodes
drain here for half an hour, and saves take a minute."""

from itertools import pairwise

import pytest

from orchestrator.cells.status import Notice
from orchestrator.ray_backend.draining import SAVE_S

HALF_AN_HOUR = 1800


def drained(world, deadline_s):
    """A run of two cells, the node of one of which drains from now on. 0: who knows till when."""
    run = world.run("a", "b")
    world.pass_s(run, 50)
    deadline_ms = 1000 * (world.clock.now + deadline_s) if deadline_s else 0
    world.drains = {"node-of-a": deadline_ms}
    return run


@pytest.mark.parametrize("save_s", [1, 5, 20, 60])
@pytest.mark.parametrize("deadline_s", [0, 2 * HALF_AN_HOUR], ids=["some time", "in an hour"])
def test_a_cell_on_a_node_that_drains_for_long_goes_on_training(world, save_s, deadline_s):
    world.save_s = save_s
    run = drained(world, deadline_s)
    before, most = world.actor("a").trained_s, 0
    events = []
    for _ in range(HALF_AN_HOUR):
        events += world.pass_s(run, 1)
        most = max(most, len(run._running["a"].refs))
    assert world.actor("a").trained_s - before > 0.85 * HALF_AN_HOUR
    assert most <= 3, "one save at a time, beside what the actor is to go on with"
    saves = world.actor("a").saves()
    apart = max(SAVE_S, 10 * save_s)
    assert len(saves) > 0.5 * HALF_AN_HOUR / (apart + save_s)
    assert all(apart <= later - earlier for earlier, later in pairwise(saves))
    assert sum(isinstance(event, Notice) for event in events) == len(saves)
    assert not world.actor("b").saves()


@pytest.mark.parametrize("save_s", [1, 20])
@pytest.mark.parametrize("deadline_s", [12, 100, 300])
def test_it_saves_at_once_and_once_more_shortly_before_the_node_goes(world, save_s, deadline_s):
    world.save_s = save_s
    run = drained(world, deadline_s)
    begun = world.clock.now
    world.pass_s(run, deadline_s)
    saves = [at - begun for at in world.actor("a").saves()]
    assert saves[0] < 5
    if deadline_s > 2 * save_s + 12:
        last = deadline_s - saves[-1]  # it waits for two slices of training, and takes its time
        assert save_s + 2 < last < 2 * save_s + 15


def test_a_new_process_on_another_such_node_saves_though_the_last_one_never_did(world):
    world.save_s = 1e6
    run = drained(world, deadline_s=0)
    world.pass_s(run, 10)
    assert len(world.actor("a").saves()) == 1
    world.kill("a")
    world.pass_s(run, 10)
    assert len(world.actors) == 3 and len(world.actor("a").saves()) == 1
