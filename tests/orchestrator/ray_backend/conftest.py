"""A made-up cluster for each test."""

import pytest

from tests.orchestrator.ray_backend.simulation import World


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)
