"""Who is told to set the pace, by who waits."""

from __future__ import annotations

import pytest

from orchestrator.cells.status import CellStatus, ProducerStatus
from orchestrator.pace import pace, waits
from orchestrator.suite import Suite


def suite(cells: dict[str, dict[str, float]], producers: dict[str, dict[str, float]]) -> Suite:
    begun = [CellStatus(name, "loading", 0, 10) for name in cells]
    made = Suite(100, begun, list(producers))
    for name, seconds in cells.items():
        made.update(CellStatus(name, "training", 50, 10, rows_trained=500, seconds=seconds))
    for name, seconds in producers.items():
        made.update(ProducerStatus(name, seconds=seconds))
    return made


def test_cells_that_wait_for_rows_name_the_forward() -> None:
    slow = suite(
        {"trainer-0": {"train": 2.0, "feed": 8.0}, "trainer-1": {"train": 4.0, "feed": 6.0}},
        {"producer-0": {"forward": 9.9, "credit": 0.1}},
    )
    said = pace(slow)
    assert said.startswith("the forward sets the pace: even trainer-1 waited 60% of its time")
    assert "resources.producers" in said
    assert waits(slow) == {
        "producer-0": {"credit_wait_s": 0.1},
        "trainer-0": {"feed_wait_s": 8.0},
        "trainer-1": {"feed_wait_s": 6.0},
    }


def test_producers_that_wait_for_cells_name_training_and_the_slowest_cell() -> None:
    said = pace(
        suite(
            {"trainer-0": {"train": 9.0, "feed": 1.0}, "trainer-1": {"train": 4.0, "feed": 6.0}},
            {"producer-0": {"forward": 3.0, "credit": 7.0}},
        )
    )
    assert said.startswith("training sets the pace: trainer-0 waited 10% of its time for rows")
    assert "producer-0 70% of its own" in said and "resources.cells" in said


@pytest.mark.parametrize("producers", [{}, {"producer-0": {}}])
def test_nothing_is_said_before_anybody_has_worked_or_where_nobody_feeds(producers) -> None:
    assert pace(suite({"trainer-0": {"train": 1.0}}, producers)) == ""


def test_who_hardly_waits_keeps_pace() -> None:
    even = suite(
        {"trainer-0": {"train": 9.9, "feed": 0.1}}, {"producer-0": {"forward": 9.7, "credit": 0.3}}
    )
    assert pace(even) == "cells and producers keep pace with each other"
    assert waits(suite({"trainer-0": {"train": 1.0}}, {})) == {}


def test_a_producer_that_was_replaced_counts_for_what_it_did() -> None:
    one = suite({"trainer-0": {"train": 1.0}}, {"producer-0": {"credit": 2.0}})
    one.update(ProducerStatus("producer-0", {"credit": 2.0}, {"passes": 3, "late_passes": 1}))
    one.replace("producer-0")
    one.update(ProducerStatus("producer-0", {"credit": 1.0}, {"passes": 4, "late_passes": 0}))
    assert waits(one)["producer-0"] == {"credit_wait_s": 3.0}
    assert one.forwards == {"producer-0": {"passes": 7, "late_passes": 1}}
    assert one.progress("producer-0") == one.progress("trainer-0") == (0, 0)
