"""One cluster that wants a token, with somebody at work on it, for all tests that harm neither."""

import secrets

import pytest

from tests.cluster.nodes import LIMITED, Nodes
from tests.cluster.runs import end_all
from tests.cluster.somebody import Somebody
from tests.e2e.runs import uninterrupted


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    end_all()


@pytest.fixture(scope="session")
def token():
    return secrets.token_hex(32)


@pytest.fixture(scope="session")
def nodes(token):
    """A cluster of one node with two CPUs, which has less memory than it says."""
    nodes = Nodes(token)
    try:
        nodes.start("head", cpus=2, before=LIMITED, memory_bytes=90 * 10**12)
        yield nodes
    finally:
        nodes.down()


@pytest.fixture(scope="session")
def somebody(nodes, token):
    """Somebody else, who was there before and still is there at the end."""
    somebody = Somebody(nodes.address, token)
    try:
        first = somebody.say()
        yield somebody
        last = somebody.say()
    finally:
        somebody.leave()
    assert last["answers"] > first["answers"] and last["nodes"] == 1 and nodes.alive("head")


@pytest.fixture(scope="session")
def longer(model, tmp_path_factory):
    """Of 400 steps, without Ray."""
    return uninterrupted(tmp_path_factory.mktemp("longer"), model, tokens=256 * 400)
