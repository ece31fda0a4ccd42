"""Progress over time: rising lines, ever more rarely, that never get in the way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from orchestrator.registry import progress
from orchestrator.registry.progress import ProgressFile, progress_path, read_progress
from orchestrator.registry.verify import verify
from orchestrator.snapshot import Snapshot
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, write_manifest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def steps(file: ProgressFile, clock: list[float], seconds: int) -> None:
    for step in range(seconds * 2):
        clock[0] += 0.5
        file.update(Snapshot(10**6, "training", step=step))


def test_two_weeks_leave_some_thousands_of_lines(tmp_path: Path, clock: list[float]) -> None:
    file = ProgressFile(tmp_path / "progress.jsonl")
    steps(file, clock, 500)
    early = len((tmp_path / "progress.jsonl").read_text().splitlines())
    assert 490 <= early <= 501
    for _ in range(14 * 24 * 60):
        clock[0] += 60
        file.update(Snapshot(10**6, "training", step=int(clock[0])))
    assert len((tmp_path / "progress.jsonl").read_text().splitlines()) < 5000


def test_a_new_phase_is_told_at_once_and_standing_still_is_not(
    tmp_path: Path, clock: list[float]
) -> None:
    file = ProgressFile(progress_path(tmp_path, 1))
    progress_path(tmp_path, 1).parent.mkdir()
    for phase, step in (("loading", 0), ("training", 0), ("training", 1), ("testing", 9)):
        file.update(Snapshot(10, phase, step=step))
    clock[0] += 100
    file.update(Snapshot(10, "testing", step=9))
    lines = [(line["phase"], line["step"]) for line in read_progress(tmp_path, 1)]
    assert lines == [("loading", 0), ("training", 0), ("testing", 9)]


def test_a_disk_that_refuses_is_told_once(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    file = ProgressFile(tmp_path / "absent" / "progress.jsonl")
    with caplog.at_level(logging.WARNING, "mtc"):
        steps(file, clock, 5)
    assert len(caplog.records) == 1 and "cannot be written" in caplog.text


def test_half_a_line_of_a_killed_driver_is_passed_over(tmp_path: Path) -> None:
    assert read_progress(tmp_path, 1) == []
    path = progress_path(tmp_path, 1)
    path.parent.mkdir()
    path.write_text('{"at": 1.0, "step": 1}\n{"at": 2.0, "st')
    assert read_progress(tmp_path, 1) == [{"at": 1.0, "step": 1}]


def test_a_run_leaves_rising_lines_and_verify_reads_them(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", family="llama", n_layers=1)
    pair = "  - {layers: 0, source: resid_mid, target: mlp_out}"
    manifest = write_manifest(tmp_path, model, tokens=256 * 8, transcoders=pair)
    code, printed = run_here(manifest, tmp_path)
    assert code == 0, printed
    run = tmp_path / "small"
    lines = read_progress(run, 1)
    assert {line["phase"] for line in lines} >= {"training", "done"}
    for name in ("at", "step", "rows_trained", "passes"):
        values = [line[name] for line in lines]
        assert values == sorted(values), name
    (cell,) = lines[-1]["stages"]
    assert lines[-1]["stages"][cell]["train"] > 0 and lines[-1]["resident_bytes"][cell] > 0
    assert lines[-1]["rows_trained"] == 256 * 8
    assert not verify(run).faults
    with open(progress_path(run, 1), "a") as file:
        file.write("{broken\n")
    (fault,) = verify(run).faults
    assert fault.path.endswith("0001.progress.jsonl") and "delete the line" in fault.remedy
