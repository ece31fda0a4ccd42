"""Session-wide: one Ray to join, and a longer uninterrupted run to compare with."""

import pytest

from tests.e2e.runs import run_here, write_manifest
from tests.ray.joined import ray_cluster


@pytest.fixture(scope="session")
def cluster():
    """Address of a Ray that outlives the runs that join it."""
    with ray_cluster() as address:
        yield address


@pytest.fixture(scope="session")
def longer(model, tmp_path_factory):
    """An uninterrupted run of 160 steps in this process: manifest, run folder, what it printed."""
    folder = tmp_path_factory.mktemp("longer")
    manifest = write_manifest(folder, model, tokens=256 * 160)
    code, printed = run_here(manifest, folder)
    assert code == 0, printed
    return manifest, folder / "small", printed
