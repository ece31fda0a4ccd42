"""How long a silent head is waited for. It is made up, as is the clock."""

import pytest

from orchestrator.failures import Stopped
from orchestrator.ray_backend.head import Head


@pytest.fixture
def head(world):
    return Head()


def test_a_head_that_is_silent_for_half_a_minute_is_gone(world, head):
    world.head_up = False
    for _ in range(6):
        world.clock.sleep(5)
        head.check()
    world.clock.sleep(6)
    with pytest.raises(Stopped, match="has not answered for 31 s"):
        head.check()


def test_one_unanswered_question_after_a_busy_spell_is_no_silence(world, head):
    """The driver hung on a slow disk, say, and asked nobody meanwhile; then the head restarts."""
    world.clock.sleep(40)
    world.head_up = False
    head.check()
    assert not head.answers
    world.clock.sleep(3)
    world.head_up = True
    head.check()
    assert head.answers


def test_an_answer_ends_a_silence(world, head):
    for _ in range(10):
        for up in (False, True):
            world.clock.sleep(20)
            world.head_up = up
            head.check()


def test_who_has_to_know_now_is_answered_afresh(world, head):
    head.check()
    assert not world.head_asked, "that it was there a moment ago is enough for most"
    world.head_up = False
    head.check(now=True)
    assert len(world.head_asked) == 1 and not head.answers
