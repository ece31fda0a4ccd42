"""What all cells said last, as one; and what those which were replaced had done before."""

import pytest

from orchestrator.cells.status import CellStatus, TranscoderStatus
from orchestrator.suite import Suite, tokens_per_second


def cell(name, step, phase="training", rows=None, **seconds):
    """It did ten rows and one pass a step. rows: of this process, if it did not do all steps."""
    done = 10 * step if rows is None else rows
    return CellStatus(
        name,
        phase,
        step,
        10,
        (TranscoderStatus(f"{name}.a", "training", step),),
        rows_trained=done,
        seconds=seconds or {"forward": 1.0},
        forwards={"passes": done // 10},
    )


def suite(*cells):
    begun = [
        CellStatus(s.cell, "loading", 0, 10, (TranscoderStatus("", "waiting"),)) for s in cells
    ]
    made = Suite(100, begun)
    for status in cells:
        made.update(status)
    return made


def test_a_suite_is_as_far_as_its_last_cell():
    both = suite(cell("a", 40, phase="calibrating"), cell("b", 30))
    assert (both.phase, both.step, both.rows_trained) == ("training", 30, 300)
    assert [row.id for row in both.transcoders] == ["a.a", "b.a"]


def test_its_rate_is_that_of_the_slowest_cell_and_its_end_that_of_the_last():
    both = suite(cell("a", 40, forward=2.0), cell("b", 30, forward=1.0))
    assert both.tokens_per_second == 200
    assert both.seconds_left == pytest.approx(max(60 * 10 / 200, 70 * 10 / 300))


def test_nobody_knows_the_end_before_every_cell_has_a_rate():
    assert suite(cell("a", 40), cell("b", 0)).seconds_left is None


def test_a_cell_that_has_ended_holds_nobody_back():
    both = suite(cell("a", 5, phase="done"), cell("b", 30))  # all of a were stopped
    assert both.step == 30 and both.seconds_left == pytest.approx(70 / 30)
    both.update(cell("b", 100, phase="done"))
    assert (both.phase, both.step, both.seconds_left) == ("done", 100, None)


def test_what_is_said_of_speed_is_said_of_one_cell_and_of_none_that_trained_nothing():
    """Resumed, with nothing left for the first."""
    idle = CellStatus("a", "done", 100, 10, (TranscoderStatus("a.a", "done", 100),))
    made = Suite(
        100, [idle, CellStatus("b", "loading", 0, 10, (TranscoderStatus("b.a", "waiting"),))]
    )
    made.update(cell("b", 90, rows=200, forward=1.5, train=2.5))
    assert made.rows_trained == 200 and made.seconds == {"forward": 1.5, "train": 2.5}
    assert made.tokens_per_second == 50
    assert made.forwards["b"] == {"passes": 20} and made.separate_passes == 20


def test_separate_runs_would_have_needed_a_pass_for_each_transcoder_that_was_not_at_its_end():
    rows = [
        TranscoderStatus(f"a.{n}", state) for n, state in enumerate(("done", "waiting", "waiting"))
    ]
    made = Suite(100, [CellStatus("a", "loading", 0, 10, tuple(rows))])
    made.update(cell("a", 40))
    assert made.separate_passes == 2 * 40


def test_waiting_counts_as_time_of_training():
    assert tokens_per_second(cell("a", 10, forward=1.0, wait=3.0)) == 25


def test_a_replaced_cell_counts_for_what_it_did():
    one = suite(cell("a", 40, forward=4.0, train=8.0))
    one.replace("a")
    assert (one.phase, one.step, one.rows_trained) == ("loading", 40, 400)
    assert one.forwards == {"a": {"passes": 40}}
    # It goes on from its checkpoint at step 35: five steps are done twice, and both cost.
    one.update(cell("a", 45, rows=100, forward=1.0))
    assert one.rows_trained == 500
    assert one.forwards == {"a": {"passes": 50}}
    assert one.seconds == {"forward": 5.0, "train": 8.0}
    assert one.tokens_per_second == 500 / 13
    assert one.separate_passes == 50
    assert [status.step for status in one.replaced] == [40]
