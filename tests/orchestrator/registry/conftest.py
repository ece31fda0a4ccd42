"""A run folder with every kind of file in it, and a copy of it for each test."""

import shutil
from pathlib import Path

import pytest

from tests.orchestrator.registry.runs import age, make_run


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("original"))


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """Nothing in it is as young as a tick of the clock."""
    run = tmp_path / "t"
    shutil.copytree(original, run)
    age(run)
    return run
