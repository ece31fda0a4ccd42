"""What tracking is made of, without wandb: names, lines of growing files, offsets, who decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtc_core.held_out import HeldOut
from orchestrator.cells.transcoder_run import TranscoderRun
from orchestrator.evaluating.results import SPLICE, Results
from orchestrator.manifest.schema import TrackingSection
from orchestrator.run_folder.transcoder_folder import TranscoderFolder
from orchestrator.tracking import make_tracker
from orchestrator.tracking.follow import SETTLED_S, Settling, Suite
from orchestrator.tracking.names import held_out_figures, history_row
from orchestrator.tracking.tail import Tail
from orchestrator.tracking.tracking_file import NAME, Destination, TrackingFile
from tests.core import small
from tests.orchestrator.tracking.tracked import A, line

ONLINE = Destination("online", "p", None, None)


def test_a_line_has_the_names_that_users_of_training_scripts_know() -> None:
    row = history_row("id", line(3), aux_weight=0.25)
    assert row == {
        "step": 3,
        "tokens": 1024,
        "id/loss": 0.25,
        "id/l2_loss": 4.0,
        "id/min_l2_loss": 4.0,
        "id/max_l2_loss": 12.0,
        "id/mean_l2_loss": 8.0,
        "id/l0_norm": 3.5,
        "id/num_dead_features": 7,
        "id/aux_loss": 0.125,
        "id/fvu": 0.25,
        "id/fvu_prefix_1": 0.75,
        "id/fvu_prefix_2": 0.5,
        "id/fvu_prefix_3": 0.25,
        "id/dead_share": 0.125,
        "id/extreme_row_share": 0.01,
        "id/threshold": 0.2,
        "id/lr": 1e-3,
    }


def test_held_out_figures_are_told_apart_from_training_ones() -> None:
    ordinary = {"fvu": 0.3, "fvu_by_prefix": [0.6, 0.3], "fvu_ridge": 0.5, "l0": 4.25}
    shares = {"dead_share": 0.1, "extreme_row_share": 0.02}
    figures = held_out_figures("id", {"ordinary": ordinary, "all": {"fvu": 0.35}, **shares})
    assert all(name.startswith("id/test/") for name in figures)
    assert figures["id/test/fvu"] == 0.3 and figures["id/test/fvu_all_rows"] == 0.35
    assert figures["id/test/fvu_prefix_1"] == 0.6 and figures["id/test/l0"] == 4.25


def test_training_writes_what_tracking_hands_over(tmp_path: Path) -> None:
    trainer = small.trainer({}, {"dead_after_tokens": 32})
    trainer.weights.b_enc[:10] = -1e3
    (report,) = small.run(trainer, 0, 1)
    folder = TranscoderFolder(tmp_path)
    run = TranscoderRun(trainer.spec, trainer.train, folder, "cpu", 2, trainer.learner.workspace)
    run.trainer = trainer
    run._log(0, report)
    (written,) = Tail(folder.metrics, 0).read()
    row = history_row(A, written, trainer.spec.aux_weight)
    assert row.keys() == history_row(A, line(0), 1.0).keys()
    assert row[f"{A}/l2_loss"] == pytest.approx(row[f"{A}/fvu"] * small.D_OUT)
    assert row[f"{A}/num_dead_features"] == trainer.dead > 0
    assert row[f"{A}/dead_share"] == trainer.dead_share


def test_evaluation_has_the_figures_that_tracking_hands_over() -> None:
    trainer = small.trainer()
    small.run(trainer, 0, 5)
    held_out = HeldOut(trainer, 64)
    held_out.calibrate(*small.rows(seed=7))
    held_out.settle()
    held_out.test(*small.rows(seed=8))
    figures = held_out_figures(A, held_out.summary())
    assert all(isinstance(value, float) for value in figures.values())
    assert figures[f"{A}/test/fvu"] == figures[f"{A}/test/fvu_prefix_3"]


def test_the_suite_in_its_model_is_handed_over_whenever_it_is_another(tmp_path: Path) -> None:
    one = {
        "ce": 3.5, "ce_increase": 0.5, "ce_increase_se": 0.1, "ce_recovered_zero": 0.9,
        "ce_recovered_mean": None, "kl": 0.2, "top1_agreement": 0.8, "by_prefix": None,
    }  # fmt: skip
    suite = Suite(tmp_path, {A: {"aux_weight": 0.1}}, {})
    assert suite.new_figures() == {}
    results = Results(tmp_path / "evaluations" / "test")
    results.write(SPLICE, {"transcoders": {A: one}, "joint": one})
    figures = suite.new_figures()
    assert figures[f"{A}/spliced/kl"] == figures["suite/spliced/kl"] == 0.2
    assert f"{A}/spliced/ce_recovered_mean" not in figures and len(figures) == 10
    assert suite.new_figures() == {}
    results.write(SPLICE, {"transcoders": {A: {**one, "kl": 0.1}}, "joint": one})
    assert suite.new_figures() == {**figures, f"{A}/spliced/kl": 0.1}
    assert suite.new_figures() == {}


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "metrics.jsonl", 0)
    assert tail.read() == []
    tail.path.write_text('{"step": 0}\n{"step"')
    assert tail.read() == [{"step": 0}]
    assert tail.read() == []
    with open(tail.path, "a") as file:
        file.write(": 1}\n")
    assert tail.read() == [{"step": 1}]
    assert tail.offset == tail.path.stat().st_size and tail.damaged == 0


def test_a_file_that_was_cut_back_is_read_on_where_it_was(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "metrics.jsonl", 0)
    text = "".join(f'{{"step": {step}}}\n' for step in range(6))
    tail.path.write_text(text)
    assert len(tail.read()) == 6
    tail.path.write_text(text[:26])
    assert tail.read() == []
    tail.path.write_text(text + '{"step": 6}\n')
    assert tail.read() == [{"step": 6}]


def test_a_damaged_line_is_counted_and_left_out(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "metrics.jsonl", 0)
    tail.path.write_bytes(b'{"step": 0}\n\0\0\0\n[1]\n{"step": 1}\n')
    assert tail.read() == [{"step": 0}, {"step": 1}]
    assert tail.damaged == 2


def test_offsets_count_as_safe_after_a_while() -> None:
    settling = Settling()
    assert settling.settled(0.0, {"a": 1}) is None
    assert settling.settled(1.0, {"a": 2}) is None
    assert settling.settled(SETTLED_S + 0.5, {"a": 3}) == {"a": 1}
    assert settling.settled(SETTLED_S + 0.6, {"a": 4}) is None
    assert settling.settled(SETTLED_S + 2, {"a": 5}) == {"a": 2}


def test_a_run_keeps_its_wandb_run_and_its_offsets(tmp_path: Path) -> None:
    file = TrackingFile.open(tmp_path, b"resolved", ONLINE)
    file.given_bytes = {A: 12}
    file.save(tmp_path)
    assert TrackingFile.open(tmp_path, b"resolved", ONLINE) == file


@pytest.mark.parametrize("field", ["mode", "project", "entity", "server"])
def test_another_destination_gets_everything(tmp_path: Path, field: str) -> None:
    file = TrackingFile.open(tmp_path, b"resolved", ONLINE)
    file.given_bytes = {A: 12}
    file.save(tmp_path)
    values = {"mode": "online", "project": "p", "entity": None, "server": None, field: "other"}
    moved = TrackingFile.open(tmp_path, b"resolved", Destination(**values))
    assert moved.id == file.id and moved.given_bytes == {}


@pytest.mark.parametrize("damage", ["another run", "", "[]", '{"run": 1}'])
def test_a_run_begun_anew_is_a_new_wandb_run(tmp_path: Path, damage: str) -> None:
    file = TrackingFile.open(tmp_path, b"resolved", ONLINE)
    file.given_bytes = {A: 12}
    file.save(tmp_path)
    if damage != "another run":
        (tmp_path / NAME).write_text(damage)
    found = TrackingFile.open(tmp_path, damage.encode(), ONLINE)
    assert found.id != file.id and found.given_bytes == {}


def test_off_tracks_nothing_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    tracker = make_tracker(TrackingSection(), tmp_path)
    tracker.start()
    assert tracker.poll() == [] and tracker.close(0) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "environment", "project", "entity"),
    [
        ({}, {}, "mtc-orchestrator", ""),
        ({}, {"WANDB_PROJECT": "e", "WANDB_ENTITY": "team"}, "e", "team"),
        ({"project": "m", "entity": "us"}, {"WANDB_PROJECT": "e", "WANDB_ENTITY": "t"}, "m", "us"),
        ({"project": "mtc-orchestrator"}, {"WANDB_PROJECT": "e"}, "mtc-orchestrator", ""),
    ],
)
def test_the_manifest_goes_before_the_environment(
    given: dict[str, str],
    environment: dict[str, str],
    project: str,
    entity: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shown by a follower that writes its arguments down, in place of the real one."""
    for name in ("WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nprintf "%s|" "$@" > {tmp_path}/arguments\n')
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    section = TrackingSection.model_validate({"wandb": "online", **given})
    tracker = make_tracker(section, tmp_path)
    tracker.start()
    tracker.close(0)
    assert f"|online|{project}|{entity}|" in (tmp_path / "arguments").read_text()


def test_a_follower_that_cannot_start_is_told_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "absent"))
    tracker = make_tracker(TrackingSection.model_validate({"wandb": "offline"}), tmp_path)
    tracker.start()
    (message,) = tracker.poll()
    assert message.startswith("W&B stopped") and "training goes on" in message
    assert tracker.close(0) == []
