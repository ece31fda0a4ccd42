"""Producers, trainers, nodes and drivers killed at random moments: five runs of chaos.py.
The seeds are others each time; a failure tells its own.
"""

from __future__ import annotations

import random

import pytest

from tests.cluster.chaos import series

pytestmark = pytest.mark.chaos
RUNS = 5


@pytest.fixture(scope="module")
def harmful(model, tmp_path_factory):
    """A cluster, and what its runs are compared with."""
    with series(tmp_path_factory.mktemp("chaos"), model) as one:
        yield one


@pytest.mark.parametrize("number", range(RUNS))
def test_whatever_is_killed_a_run_ends_with_the_same_bits(harmful, number, tmp_path):
    result = harmful.run(random.randrange(10**6), tmp_path)
    harmful.rest()
    assert not result.wrong, result
