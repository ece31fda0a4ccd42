"""`mtc-orchestrate run` as it comes: a Ray of its own, of which nothing is left."""

import os
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.runs import finals, run_in_child, write_manifest
from tests.ray.commands import adopting, running
from tests.ray.harm import until

TRAINER = "ray::TranscoderTrainer"


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
        policies = until(lambda: policies_with_a_trainer(command.pid), "a trainer")
        assert command.exit_code() == 0, command.printed
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        for name in (TRAINER, "raylet", "gcs_server"):
            assert policies[name] == {(os.SCHED_OTHER, ours)}, name
        for name in ("log_monitor", "ray::DashboardAgent", "ray::RuntimeEnvAgent"):
            assert policies[name] == {(os.SCHED_IDLE, ours)}, f"{name} takes the trainers' time"
        command.assert_nothing_is_left(limit_s=1)
        assert not folder.exists()
        assert "forward passes in all: the first block ran" in command.printed
        assert "ray::" not in command.printed and "Traceback" not in command.printed
    assert finals(tmp_path / "small") == finals(tmp_path / "here" / "small")


def policies_with_a_trainer(driver):
    """{program: scheduling policies and niceness of its threads} of what the driver has started."""
    found = {}
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error, ProcessLookupError):
            policies = {
                (os.sched_getscheduler(thread.id), os.getpriority(os.PRIO_PROCESS, thread.id))
                for thread in process.threads()
            }
            for word in process.cmdline()[:3]:  # python -u FOLDER/log_monitor.py, ray::NAME.METHOD
                found.setdefault(Path(word).name.partition(".")[0], set()).update(policies)
    return found if TRAINER in found else None
