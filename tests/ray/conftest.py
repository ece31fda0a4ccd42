"""Session-wide: one Ray to join, and a longer uninterrupted run to compare with."""

import pytest

from tests.e2e.runs import uninterrupted
from tests.ray.joined import ray_cluster


@pytest.fixture(scope="session")
def cluster():
    """Address of a Ray that outlives the runs that join it."""
    with ray_cluster() as address:
        yield address


@pytest.fixture(scope="session")
def longer(model, tmp_path_factory):
    """Of 160 steps, without Ray."""
    return uninterrupted(tmp_path_factory.mktemp("longer"), model, tokens=256 * 160)
