"""Runs that are copied before anything is written into them."""

import shutil

import pytest

from tests.orchestrator.registry.runs import make_run


@pytest.fixture
def finished(reference, tmp_path):
    """A real run of four transcoders: two of one layer each, and two across layers, of two k."""
    _, run, _ = reference
    shutil.copytree(run, tmp_path / "small", ignore=shutil.ignore_patterns("tokens", "checkpoints"))
    return tmp_path / "small"


@pytest.fixture(scope="session")
def _mixed(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("mixed"))


@pytest.fixture
def mixed(_mixed, tmp_path):
    """Layer 0 is done, 1 in training, 2 has failed, 3 waits; written without a model."""
    shutil.copytree(_mixed, tmp_path / "t")
    return tmp_path / "t"
