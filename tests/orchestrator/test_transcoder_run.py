"""One transcoder of a cell: what may be saved of it, and when."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from mtc_core.producer import Activations
from orchestrator.cells.transcoder_run import TranscoderRun
from orchestrator.run_folder.transcoder_folder import TranscoderFolder
from tests.core import small


def begun(tmp_path: Path) -> tuple[TranscoderRun, Activations]:
    """One with weights, and a batch for it."""
    trainer = small.trainer()
    folder = TranscoderFolder(tmp_path)
    run = TranscoderRun(trainer.spec, trainer.train, folder, "cpu", 2, trainer.learner.workspace)
    run.resume()
    x, y = small.rows(512, seed=1)
    rows = {trainer.spec.source.tensor: x, trainer.spec.target.tensor: y}
    run.begin(rows)
    return run, {name: values[: small.BATCH] for name, values in rows.items()}


def test_a_step_that_broke_off_is_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory ran out within it, say: some of its state is of before, some of after."""
    run, batch = begun(tmp_path)
    run.step(0, batch)
    run.checkpoint()
    run.step(1, batch)

    def lacking(*_: object) -> None:
        raise MemoryError

    assert run.trainer is not None
    monkeypatch.setattr(run.trainer.ridge, "add", lacking)
    with pytest.raises(MemoryError):
        run.step(2, batch)
    run.checkpoint()
    assert [path.name for path in run.folder.checkpoints.iterdir()] == ["step-000000001"]


def test_what_only_training_needs_is_let_go_before_held_out_rows(tmp_path: Path) -> None:
    """Weights and moments, which is most of what a cell holds, beside a copy of the weights."""
    run, batch = begun(tmp_path)
    for step in range(run.train.steps):
        run.step(step, batch)
    run.checkpoint()
    assert run.trainer is not None
    weights = run.trainer.weights.W_enc
    held = [weakref.ref(weights), weakref.ref(run.trainer.optimizer.state[weights]["exp_avg"])]
    del weights
    run.prepare_held_out(256)
    gc.collect()
    assert [one() for one in held] == [None, None]
    assert run.step_index == run.train.steps
    run.checkpoint()  # as at a signal: there is nothing to save
    run.calibrate(batch)
    assert run.held_out is not None
    run.settle()
    run.test(batch)
    run.save_final({})
    assert run.finished
