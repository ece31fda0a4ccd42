"""What the backend does when machines go, in an order that only chance gives a real cluster. Ray is
made up (simulation.py)."""

import pytest

from orchestrator.cells.status import CellLost
from orchestrator.failures import Stopped


def test_a_lost_cell_is_begun_anew(world):
    run = world.run("a", "b")
    world.pass_s(run, 10)
    world.kill("a")
    world.pass_s(run, 10)
    assert [actor.name for actor in world.actors] == ["a", "b", "a"]
    assert world.actor("a").trained_s > 5


def test_a_head_that_dies_with_a_cell_on_its_machine_is_not_asked_for_another(world):
    """Ray would wait for it inside the call (the made-up one fails), and the others never save."""
    run = world.run("a", "b")
    world.pass_s(run, 12)
    asked = len(world.head_asked)
    assert world.clock.now - world.head_asked[-1] < 5, "an answer from before the loss is known"
    world.head_up = False
    world.kill("a")
    with pytest.raises(Stopped, match="has not answered"):
        world.pass_s(run, 60)
    assert len(world.head_asked) > asked + 1
    assert [actor.name for actor in world.actors] == ["a", "b"]
    run.stop()
    assert world.actor("b").saves()


def test_everybody_waits_for_a_head_that_comes_back(world):
    run = world.run("a")
    world.pass_s(run, 10)
    world.head_up = False
    world.kill("a")
    events = world.pass_s(run, 20)
    assert isinstance(events[-1], CellLost) and len(world.head_asked) < 100, "no busy waiting"
    world.head_up = True
    world.pass_s(run, 20)
    assert len(world.actors) == 2 and world.actor("a").trained_s > 10
