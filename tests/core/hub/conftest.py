"""A stand-in for the Hugging Face Hub, and a suite to send."""

import pytest

from tests.core.hub.client import point_at
from tests.core.hub.suites import make_suite
from tests.stand_ins.hub import stand_in_hub
from tests.stand_ins.hub_state import READER, WRITER


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, and a client that knows no other Hub, no cache and no login."""
    from huggingface_hub import close_session

    with stand_in_hub() as hub:
        point_at(hub.url, tmp_path / "cache", monkeypatch)
        yield hub
        close_session()
    assert not [r for r in hub.requests if r.server == "storage" and "authorization" in r.headers]
    for request in hub.requests:  # whatever a test does: a token is in this header or nowhere
        rest = {key: value for key, value in request.headers.items() if key != "authorization"}
        said = f"{request.path} {rest} {request.body!r}"
        assert WRITER not in said and READER not in said
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in kept if WRITER.encode() in path.read_bytes()]


@pytest.fixture
def suite(tmp_path):
    """A folder to send, with two transcoders."""
    make_suite(tmp_path / "suite", 0, 1)
    return tmp_path / "suite"
