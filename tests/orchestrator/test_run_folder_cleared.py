"""What a run folder clears, it clears whole, and beside nobody who still works there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.run_folder.folder import RunFolder, resolve
from orchestrator.run_folder.transcoder_folder import TranscoderFolder
from tests.orchestrator.test_run_folder import manifest_of, open_run


def test_tokens_that_are_forgotten_half_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of them could count as the whole."""
    folder = RunFolder(tmp_path, "t")
    folder.tokens.mkdir(parents=True)
    (folder.tokens / "end.json").write_text("{}")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mtc_core.atomic.shutil.rmtree", die)
        folder.forget_tokens()
    assert not folder.tokens.exists()
    folder.forget_tokens()
    assert list(folder.path.iterdir()) == []


def test_what_a_trainer_of_before_has_saved_meanwhile_is_not_cleared(tmp_path: Path) -> None:
    """It was at work on a host that was cut off, while the manifest was changed and examined."""
    open_run(tmp_path)
    manifest = manifest_of(tmp_path, {8: "seed: 3"})
    folder = RunFolder(tmp_path / "runs", "t")
    found = folder.examine(manifest, resolve(manifest, 12, 2))
    saved = folder.transcoders / "L00/checkpoints/step-000000001"
    saved.mkdir(parents=True)
    (folder.tokens).mkdir()
    with pytest.raises(ConfigError, match="has saved something meanwhile"):
        folder.begin(found.resolved, manifest.source_text, forget_tokens=True)
    assert saved.is_dir() and folder.resolved.is_file() and folder.tokens.is_dir()
    assert open_run(tmp_path).resumed


def test_a_replacement_waits_for_a_trainer_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_run(tmp_path)
    monkeypatch.setattr("orchestrator.run_folder.transcoder_folder.CLAIM_S", 0.5)
    with (
        TranscoderFolder(tmp_path / "runs/t/transcoders/L00").claim(),
        pytest.raises(ConfigError, match="is still being trained by an earlier process"),
    ):
        open_run(tmp_path, {8: "seed: 3"})
