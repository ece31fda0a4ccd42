"""When a run ends for want of room: for those who wait for some, and for nobody else. Ray is made
up (simulation.py)."""

import pytest

from mtc_core.errors import ConfigError
from orchestrator.failures import Stopped


def test_a_run_that_never_finds_room_ends_at_the_limit(world):
    world.group_whole, world.placeless, world.load_s = False, {0, 1}, 1e9
    run = world.run("a", "b")
    world.pass_s(run, 55)
    with pytest.raises(ConfigError, match="no room"):
        world.pass_s(run, 10)


def test_a_replacement_that_finds_no_room_ends_the_run(world):
    run = world.run("a", "b")
    world.pass_s(run, 10)
    world.kill("a")
    world.group_whole, world.placeless, world.load_s = False, {0}, 1e9
    world.pass_s(run, 55)
    with pytest.raises(Stopped, match="no room"):
        world.pass_s(run, 15)


@pytest.mark.parametrize("load_s", [2, 90], ids=["a quick one", "one slower than the limit"])
def test_a_node_that_nobody_needs_any_more_ends_no_run(world, load_s):
    """The group covers the bundle of a cell that is done, whose node has gone; then another cell
    dies of something harmless, and its new process has a node."""
    run = world.run("a", "done")
    world.pass_s(run, 10)
    world.group_whole, world.placeless, world.load_s = False, {1}, load_s
    world.kill("a")
    world.pass_s(run, 300)
    assert world.actor("a").trained_s > 150
