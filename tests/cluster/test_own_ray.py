"""A Ray of the run's own: how little it does beside, and one message where it cannot start or its
cells run out of memory."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.cluster.nodes import LIMITED
from tests.cluster.runs import OUT_OF_MEMORY, TOO_LARGE, VAST, Started, hiding, run
from tests.e2e.runs import write_manifest
from tests.e2e.test_split import split
from tests.ray.harm import newest_step, until

pytestmark = pytest.mark.cluster
MONITOR = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "300"}


@pytest.fixture
def home(tmp_path):
    """A home folder of the run's own; at the end no process is left that has it."""
    folder = tmp_path / "home"
    folder.mkdir()
    yield {"HOME": str(folder)}
    assert not [process for process in psutil.process_iter() if _home(process) == str(folder)]


def _home(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HOME")
    except psutil.Error:  # gone meanwhile, or somebody else's
        return None


def test_a_ray_that_does_not_start_says_where_its_logs_are(model, home, tmp_path):
    """Its sockets have names that are too long. (A full disk takes Ray half a minute to tell.)"""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    manifest = write_manifest(tmp_path, model)
    ended = run(manifest, tmp_path, env=home, altered={"ray_folder": str(folder)})
    assert ended.code == 3 and ended.clean and ended.err == "", ended
    said = re.search(r"stopped: Ray did not start \((.*)\); its logs are in (\S+)\. ", ended.out)
    assert said and "path length cannot exceed 107 bytes" in said[1], ended
    assert Path(said[2]).is_dir() and Path(said[2]).parent == folder
    assert "With --backend local the run needs no Ray; the same command continues" in ended.out


@pytest.mark.parametrize("producers", [0, 1])
def test_the_raylet_rests_beside_trainers_that_make_their_own_rows(
    model, home, tmp_path, producers
):
    """It looks a hundred times a second for freed objects where producers put some, wakes up 270
    times in all, and each puts off a thread that trains; else 27 times."""
    manifest = write_manifest(tmp_path, model, tokens="10M")
    wanted = split(producers, 1) if producers else ()
    options = (word for key_value in wanted for word in ("--set", key_value))
    started = Started(manifest, tmp_path, "--no-dashboard", *options, env=home)
    until(lambda: newest_step(tmp_path / "small") > 0, "training")
    (raylet,) = (
        process
        for process in psutil.Process(started.process.pid).children(recursive=True)
        if process.name() == "raylet"
    )
    before, began = raylet.num_ctx_switches().voluntary, time.monotonic()
    time.sleep(4)
    awoken = (raylet.num_ctx_switches().voluntary - before) / (time.monotonic() - began)
    started.send(signal.SIGTERM)
    assert started.end().clean
    assert (awoken > 90) == (producers > 0), f"{awoken:.0f} a second"


def test_trainers_that_ray_kills_for_want_of_memory_end_the_run_with_the_keys(
    model, home, tmp_path
):
    """In a container with 32 MB of /dev/shm, less than our object store: Ray uses a disk."""
    manifest = write_manifest(tmp_path, model, tokens="10M")
    small = hiding(Path("/dev/shm"), "mount -t tmpfs -o size=32m")
    ended = run(manifest, tmp_path, "--no-dashboard", env={**home, **MONITOR}, before=small)
    assert ended.code == 3 and ended.clean and ended.err == "", ended
    reason = "Ray killed it because its node ran out of memory; lower resources.cells"
    died, stopped = (line for line in ended.out.splitlines() if reason in line)
    assert died.endswith("it goes on from its last checkpoint in a new process (try 1 of 1)")
    assert stopped.startswith("stopped: ") and "the same command continues the run" in stopped


def test_weights_that_no_machine_can_hold_are_told_alike_without_ray(model, home, tmp_path):
    manifest = write_manifest(tmp_path, model, transcoders=TOO_LARGE)
    local = ("--backend", "local")
    ended = run(manifest, tmp_path, *local, env=home, before=LIMITED, altered=VAST)
    assert ended.code == 2 and ended.clean, ended
    assert re.fullmatch(OUT_OF_MEMORY, ended.err), ended
