"""`mtc-orchestrate run` as it comes: a Ray of its own, of which nothing is left."""

import pytest

from tests.e2e.runs import finals, run_in_child, write_manifest
from tests.ray.commands import adopting, running


@pytest.fixture(autouse=True)
def adopted():
    with adopting():
        yield


def test_a_run_ends_the_ray_that_it_started_and_gives_the_bits_of_none(model, tmp_path):
    """With two threads: a process that Ray starts would have one, and other sums."""
    manifest = write_manifest(tmp_path, model, threads=2, tokens=256 * 12)
    assert run_in_child(manifest, tmp_path / "here") == 0
    with running(manifest, tmp_path) as command:
        folder = command.ray_folder()
        assert command.exit_code() == 0, command.printed
        command.assert_nothing_is_left(limit_s=1)
        assert not folder.exists()
        assert "forward passes in all: the first block ran" in command.printed
        assert "ray::" not in command.printed and "Traceback" not in command.printed
    assert finals(tmp_path / "small") == finals(tmp_path / "here" / "small")
