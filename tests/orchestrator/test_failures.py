"""Which losses are made good, how often, and when a run gives up: a table of decisions."""

import pytest

from orchestrator.cells.status import CellLost, CellStatus, TranscoderStatus
from orchestrator.failures import BUDGETS, FailurePolicy, GiveUp, Replace


def lost(kind, cell="a"):
    return CellLost(cell, kind, f"a {kind} of {cell}")


@pytest.mark.parametrize("kind", BUDGETS)
def test_a_cell_without_progress_is_replaced_as_often_as_its_budget_says(kind):
    policy, budget = FailurePolicy(), BUDGETS[kind]
    for attempt in range(1, budget + 1):
        assert policy.decide(lost(kind), (0, 7)) == Replace(attempt, budget)
    end = policy.decide(lost(kind), (0, 7))
    assert isinstance(end, GiveUp)
    assert f"a {kind} of a" in end.why and f"{budget + 1} times" in end.why


def test_every_kind_has_its_own_budget():
    policy = FailurePolicy()
    for kind, budget in BUDGETS.items():
        for attempt in range(1, budget + 1):
            assert policy.decide(lost(kind), (0, 0)) == Replace(attempt, budget)


def test_one_that_has_failed_takes_no_progress_from_the_others():
    """A new process does not know how far it had come."""

    def progress(b, a):
        rows = (TranscoderStatus("b", "training", saved_step=b), a)
        return CellStatus("a", "training", b, 32, rows).progress

    policy, failed = FailurePolicy(), TranscoderStatus("a", "failed", saved_step=50_000)
    policy.decide(lost("crash"), progress(50_000, failed))
    for saved in range(60_000, 200_000, 10_000):
        now = progress(saved, TranscoderStatus("a", "failed"))
        assert policy.decide(lost("crash"), now) == Replace(1, BUDGETS["crash"])


@pytest.mark.parametrize("further", [(0, 8), (1, 0)], ids=["a step saved", "a transcoder done"])
def test_progress_on_disk_gives_the_whole_budget_back(further):
    policy = FailurePolicy()
    for _ in range(BUDGETS["crash"]):
        policy.decide(lost("crash"), (0, 7))
    assert policy.decide(lost("crash"), further) == Replace(1, BUDGETS["crash"])
    for _ in range(BUDGETS["crash"] - 1):
        policy.decide(lost("crash"), further)
    assert isinstance(policy.decide(lost("crash"), further), GiveUp)


def test_what_was_once_reported_counts_when_a_new_process_dies_before_it_says_anything():
    """Else a cell that dies while it loads would look like one that came further."""
    policy = FailurePolicy()
    policy.decide(lost("memory"), (0, 9))
    policy_sees_less = policy.decide(lost("memory"), (0, 0))
    assert isinstance(policy_sees_less, GiveUp)


def test_cells_do_not_share_budgets():
    policy = FailurePolicy()
    assert policy.decide(lost("memory", "a"), (0, 0)) == Replace(1, 1)
    assert policy.decide(lost("memory", "b"), (0, 0)) == Replace(1, 1)
    assert isinstance(policy.decide(lost("memory", "a"), (0, 0)), GiveUp)
