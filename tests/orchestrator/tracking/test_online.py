"""W&B online: against a stand-in for its server, and against everything that can be wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.manifest.schema import TrackingSection
from orchestrator.tracking import Tracker, make_tracker
from orchestrator.tracking import tracker as module
from tests.orchestrator.tracking.tracked import A, B, TrackedRun, expected, points, wait_until
from tests.orchestrator.tracking.tracking_server import stand_in

KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and nothing else of whoever starts the tests."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def started(run: TrackedRun, mode: str = "online") -> Tracker:
    tracker = make_tracker(TrackingSection.model_validate({"wandb": mode}), run.path)
    tracker.start()
    return tracker


def first_message(tracker: Tracker) -> str:
    said: list[str] = []
    wait_until(lambda: said.extend(tracker.poll()) or said)
    return said[0]


def test_a_stand_in_server_gets_all_points_of_a_run_and_of_its_continuation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is a stand-in: scripted, local, in memory."""
    run = TrackedRun(tmp_path)
    run.write(A, 0, 5, 10)
    with stand_in() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        tracker = started(run)
        said = first_message(tracker)
        id = run.tracking()["id"]
        assert said == f"W&B: {server.url}/someone/mtc-orchestrator/runs/{id}"
        run.write(B, 0)
        assert tracker.close(130) == []
        tracker = started(run)
        first_message(tracker)
        run.write(A, 15)
        run.write(B, 5, 10, 15)
        run.finish(A)
        assert tracker.close(0) == []
    assert list(server.history) == [id] and server.exit_codes == [130, 0]
    assert server.in_order
    assert points(server.history[id], A) == points(server.history[id], B) == expected(0, 5, 10, 15)
    assert len([row for row in server.history[id] if f"{A}/loss" in row]) == 4, "none twice"
    assert server.summary[id][f"{A}/test/fvu"] == 0.3
    assert server.runs[id]["displayName"] == "tracked"
    assert KEY.encode() not in b"".join(p.read_bytes() for p in run.path.rglob("*") if p.is_file())


@pytest.mark.parametrize("within", ["a second", "two"])
def test_a_stand_in_server_gets_all_points_of_offline_runs_by_the_command_we_tell(
    within: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is a stand-in: scripted, local, in memory."""
    run = TrackedRun(tmp_path)
    run.write(A, 0, 5, 10)
    tracker = started(run, "offline")
    said = first_message(tracker)
    tracker.close(130)
    tracker = started(run, "offline")
    run.write(A, 15, 20)
    tracker.close(0)
    first, second = sorted(run.path.glob("wandb/offline-run-*"))
    if within == "a second":  # as W&B itself calls it then; on a fast machine it may have
        second.rename(f"{first}-1")
    command = said.split("`")[1]
    assert command.startswith("wandb sync ")
    with stand_in() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        wandb = f"{sys.executable} -m {command}"
        subprocess.run(wandb, shell=True, check=True, capture_output=True, timeout=50, cwd=tmp_path)
    assert server.in_order
    assert points(server.history[run.tracking()["id"]], A) == expected(0, 5, 10, 15, 20)


def test_a_stand_in_server_that_took_nothing_gets_everything_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is a stand-in: scripted, local, in memory."""
    run = TrackedRun(tmp_path)
    run.write(A, 0, 5, 10)
    with stand_in() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with monkeypatch.context() as hurry:
            hurry.setitem(module.FINISH_S, "online", 2.0)
            server.busy = True
            tracker = started(run)
            first_message(tracker)
            (said,) = tracker.close(0)
        id = run.tracking()["id"]
        assert said.startswith("W&B: not all was uploaded in 2 s; `wandb sync ")
        assert said.endswith(f"/wandb/run-*-{id}*` uploads it")
        server.busy = False
        tracker = started(run)
        first_message(tracker)
        assert tracker.close(0) == []
    assert points(server.history[id], A) == expected(0, 5, 10)


def test_a_stand_in_server_that_refuses_the_key_is_told_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is a stand-in: scripted, local, in memory."""
    with stand_in() as server:
        server.refuse = True
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        check_stopped(started(TrackedRun(tmp_path)), "401")


def check_stopped(tracker: Tracker, reason: str) -> None:
    """It says so once, names the remedy, and closes at once."""
    said = first_message(tracker)
    assert said.startswith("W&B stopped: ") and reason in said, said
    assert said.endswith("; training goes on, metrics.jsonl has everything")
    assert "tracking.wandb: offline" in said and KEY not in said
    wait_until(lambda: tracker.poll() or True)
    before = time.monotonic()
    assert tracker.close(0) == []
    assert time.monotonic() - before < 2


def test_a_malformed_key_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    check_stopped(started(TrackedRun(tmp_path)), "API key must have 40+ characters")


def test_a_missing_key_is_told_and_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    check_stopped(started(TrackedRun(tmp_path)), "No API key configured. Use `wandb login`")


def test_a_closed_port_delays_the_end_by_no_more_than_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(module.FINISH_S, "online", 1.0)
    tracker = started(TrackedRun(tmp_path))
    time.sleep(1)
    assert tracker.poll() == []
    before = time.monotonic()
    assert tracker.close(0) == ["W&B stopped: it was not finished after 1 s"]
    assert time.monotonic() - before < 3


RAISING = """
def init(**_):
    raise RuntimeError("ab\\ncd")
class Settings:
    model_fields = {}
"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ImportError('no wandb here')", "ImportError: no wandb here"),
        (RAISING, "RuntimeError: ab cd"),
    ],
)
def test_whatever_wandb_raises_is_one_message(
    body: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wandb is a package of ours here."""
    package = tmp_path / "path" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    check_stopped(started(TrackedRun(tmp_path)), reason)
