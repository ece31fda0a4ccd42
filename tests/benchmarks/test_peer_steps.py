"""Tokens/s from what runs say of their steps: warm-up left out, everything else in."""

import json

import pytest

from benchmarks.peer_steps import Mark, our_marks, peer_marks, tokens_per_second
from orchestrator.registry.progress import read_progress

BATCH, BLOCK = 100, 4


def line(at, step, forward=0.0, train=0.0, phase="training", **stages):
    seconds = {"load": 5.0, "forward": forward, "train": train, **stages}
    return {"at": at, "phase": phase, "step": step, "stages": {"trainer-0": seconds}}


def test_rows_after_the_warmup_are_divided_by_all_the_time_until_the_end():
    marks = [Mark(1, 10.0, 90), Mark(2, 20.0, 190), Mark(3, 21.0, 290), Mark(4, 22.0, 390)]
    assert tokens_per_second(marks, ended=24.0, warmup=2) == (390 - 190) / (24.0 - 20.0)


def test_a_run_that_is_all_warmup_has_no_rate():
    with pytest.raises(ValueError, match="none is left after a warm-up of 4"):
        tokens_per_second([Mark(1, 1.0, 5), Mark(4, 4.0, 20)], 5.0, warmup=4)


def test_lines_of_a_peer_become_marks_with_the_rows_so_far():
    said = [
        {"tool": "x", "version": "1"},
        {"lr": 0.5},
        {"step": 1, "at": 3.0, "rows": 90},
        {"step": 2, "at": 4.5, "rows": 80},
        {"ended": 6.0},
    ]
    marks, ended, facts = peer_marks([json.dumps(one) for one in said])
    assert marks == [Mark(1, 3.0, 90), Mark(2, 4.5, 170)] and ended == 6.0
    assert facts == {"tool": "x", "version": "1", "lr": 0.5}


def test_a_mark_of_ours_is_where_its_block_ended_though_the_next_forward_had_begun():
    """Block by block: 2 s of forward, four steps of 1 s. Lines come when they come."""
    lines = [
        line(0.0, 0, phase="loading"),
        line(1.5, 0, forward=1.0),
        line(4.0, 2, forward=2.0, train=2.0),
        line(7.2, 4, forward=3.2, train=4.0),  # it ended at 6.0, and 1.2 s of forward are in
        line(10.0, 6, forward=4.0, train=6.0),
        line(12.0, 8, forward=4.0, train=8.0),
        line(12.5, 8, forward=4.5, train=8.0),
        line(18.0, 12, forward=6.0, train=12.0),
        line(20.0, 12, 6.0, 12.0, "calibrating", checkpoint=1.5, calibrate=0.5),
        line(30.0, 12, 6.0, 12.0, "done", checkpoint=1.5, calibrate=0.5, test=10.0),
    ]
    marks, ended = our_marks(lines, BATCH, BLOCK)
    assert marks == [Mark(4, 6.0, 400), Mark(8, 12.0, 800), Mark(12, 18.0, 1200)]
    assert ended == 19.5  # its last checkpoint is training, and calibration is not
    assert tokens_per_second(marks, ended, 4) == 800 / 13.5


def test_where_no_line_was_written_after_the_last_step_it_ends_with_training():
    lines = [
        line(5.0, 4, 1.0, 4.0),
        line(9.0, 7, 2.0, 7.0),
        line(11.0, 8, 2.0, 8.0, "testing", checkpoint=0.5, test=0.5),
    ]
    marks, ended = our_marks(lines, BATCH, BLOCK)
    assert marks[-1] == Mark(8, 10.5, 800) and ended == 10.5


def test_a_run_that_has_not_ended_its_training_is_refused():
    with pytest.raises(ValueError, match="has not come to the end"):
        our_marks([line(5.0, 4, 1.0, 4.0)], BATCH, BLOCK)


def test_what_a_real_run_writes_is_understood(reference):
    _, run, _ = reference
    marks, ended = our_marks(read_progress(run, 1), 256, 4)
    assert (marks[-1].step, marks[-1].rows) == (40, 40 * 256)
    assert ended >= marks[-1].at
