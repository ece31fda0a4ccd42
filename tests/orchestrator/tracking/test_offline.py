"""Real W&B, offline: what it records of a run, across invocations, kills and files cut back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.manifest.schema import TrackingSection
from orchestrator.tracking import Tracker, make_tracker
from orchestrator.tracking import tracker as module
from tests.orchestrator.tracking.tracked import (
    A,
    B,
    TrackedRun,
    alive,
    expected,
    points,
    wait_until,
)

OFFLINE = TrackingSection.model_validate({"wandb": "offline"})


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings, keys or runs of whoever starts the tests."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


def started(run: TrackedRun) -> tuple[Tracker, list[psutil.Process]]:
    """A tracker that has said where it records, and its processes."""
    tracker = make_tracker(OFFLINE, run.path)
    tracker.start()
    said: list[str] = []
    wait_until(lambda: said.extend(tracker.poll()) or said)
    assert said[0].startswith(f"W&B: offline run in {run.path}/wandb/offline-run-"), said
    assert said[0].endswith(
        f"`wandb sync {run.path}/wandb/offline-run-*-{wandb_id(run)}*` uploads it"
    )
    (follower,) = [p for p in psutil.Process().children() if "follow" in "".join(p.cmdline())]
    return tracker, [follower, *follower.children(recursive=True)]


def wandb_id(run: TrackedRun) -> str:
    return run.tracking()["id"]


def test_a_growing_run_is_recorded_whole_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "0123456789" * 4
    monkeypatch.setenv("WANDB_API_KEY", key)
    run = TrackedRun(tmp_path)
    run.write(A, 0, 5)
    tracker, processes = started(run)
    assert len(processes) >= 2
    assert os.getsid(processes[0].pid) != os.getsid(0), "Ctrl-C must not reach it"
    run.write(A, 10)
    run.write(B, 0, 5)  # lags
    time.sleep(1.2)
    run.write(A, 15, torn=True)
    run.write(B, 10)
    run.finish(A)
    assert tracker.poll() == [] and tracker.close(1) == [] and tracker.close(1) == []
    (recorded,) = run.recorded()
    assert points(recorded.history, A) == expected(0, 5, 10)
    assert points(recorded.history, B) == expected(0, 5, 10)
    assert {row["tokens"] for row in recorded.history} == {256, 256 * 6, 256 * 11}
    assert recorded.history[0][f"{A}/l0_norm"] == 3.5
    assert recorded.axes == {f"{A}/*": "step", f"{B}/*": "step"}
    assert {k: v for k, v in recorded.config.items() if k != "_wandb"} == run.config
    assert recorded.summary[f"{A}/test/fvu"] == 0.3 and f"{B}/test/fvu" not in recorded.summary
    assert (recorded.run.display_name, recorded.run.project) == ("tracked", "mtc-orchestrator")
    assert recorded.exit_code == 1
    whole = {A: run.metrics(A).read_bytes().rfind(b"\n") + 1, B: run.metrics(B).stat().st_size}
    assert run.tracking()["given_bytes"] == whole
    wait_until(lambda: not alive(processes))
    assert capfd.readouterr() == ("", "")
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not any(key.encode() in path.read_bytes() for path in files)


def test_a_resumed_run_goes_on_in_the_same_wandb_run_without_gaps(tmp_path: Path) -> None:
    run = TrackedRun(tmp_path)
    run.write(A, *range(0, 50, 5))
    run.write(B, 0, 5, torn=True)
    tracker, _ = started(run)
    assert tracker.close(130) == []
    text = run.metrics(A).read_text().splitlines(keepends=True)
    run.metrics(A).write_text("".join(text[:4]))  # back to a checkpoint
    run.metrics(B).write_text("")
    tracker, _ = started(run)
    time.sleep(0.3)  # it sees the files cut back
    run.write(A, *range(20, 70, 5))
    run.write(B, 0, 5, 10)
    assert tracker.close(0) == []
    first, second = run.recorded()
    assert first.run.run_id == second.run.run_id == wandb_id(run)
    assert (first.exit_code, second.exit_code) == (130, 0)
    assert points(first.history, A) == expected(*range(0, 50, 5))
    assert points(second.history, A) == expected(*range(50, 70, 5))
    assert points(first.history, B) == expected(0)
    assert points(second.history, B) == expected(5, 10)


DRIVER = """
import sys, time
from pathlib import Path
from orchestrator.manifest.schema import TrackingSection
from orchestrator.tracking import make_tracker
tracker = make_tracker(TrackingSection.model_validate({"wandb": "offline"}), Path(sys.argv[1]))
tracker.start()
while not tracker.poll():
    time.sleep(0.05)
sys.stdout.write("ready\\n")
sys.stdout.flush()
time.sleep(60)
"""


def test_nothing_runs_on_after_the_driver_is_killed(tmp_path: Path) -> None:
    run = TrackedRun(tmp_path)
    run.write(A, 0, 5)
    command = [sys.executable, "-c", DRIVER, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == "ready\n"
        processes = psutil.Process(driver.pid).children(recursive=True)
        assert {p.name() for p in processes} >= {"wandb-core"}
        run.write(A, 10)
        driver.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(processes), seconds=5)
    (recorded,) = run.recorded()
    assert points(recorded.history, A) == expected(0, 5, 10)
    assert recorded.exit_code == 137


def test_a_killed_follower_is_told_once_and_loses_no_point(tmp_path: Path) -> None:
    run = TrackedRun(tmp_path)
    run.write(A, 0, 5)
    tracker, processes = started(run)
    processes[0].kill()
    said: list[str] = []
    wait_until(lambda: said.extend(tracker.poll()) or said)
    assert said == [
        "W&B stopped: its process ended with -9; training goes on, metrics.jsonl has everything"
    ]
    wait_until(lambda: not alive(processes[:2]))  # W&B's own monitor takes five seconds longer
    assert tracker.poll() == [] and tracker.close(0) == []
    run.write(A, 10)
    tracker, _ = started(run)
    tracker.close(0)
    assert points(run.recorded()[-1].history, A) == expected(0, 5, 10)


def test_a_follower_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.FINISH_S, "offline", 0.3)
    monkeypatch.setattr(module, "GRACE_S", 0.2)
    run = TrackedRun(tmp_path)
    tracker, processes = started(run)
    processes[0].suspend()
    before = time.monotonic()
    assert tracker.close(0) == ["W&B stopped: not finished after 0 s"]
    assert time.monotonic() - before < 3
    wait_until(lambda: not alive(processes), seconds=2)
