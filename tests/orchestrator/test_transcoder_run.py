"""One transcoder of a cell: what may be saved of it, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cells.transcoder_run import TranscoderRun
from orchestrator.run_folder.transcoder_folder import TranscoderFolder
from tests.core import small


def test_a_step_that_broke_off_is_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory ran out within it, say: some of its state is of before, some of after."""
    trainer = small.trainer()
    folder = TranscoderFolder(tmp_path)
    run = TranscoderRun(trainer.spec, trainer.train, folder, "cpu", 2, trainer.learner.workspace)
    run.resume()
    x, y = small.rows(512, seed=1)
    rows = {trainer.spec.source.tensor: x, trainer.spec.target.tensor: y}
    run.begin(rows)
    batch = {name: values[: small.BATCH] for name, values in rows.items()}
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
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step-000000001"]
