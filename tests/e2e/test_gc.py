"""After `registry gc --yes` a real run is as good as before; and what was deleted can be had again,
to the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import finals, run_here, uninterrupted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run, and its manifest."""
    folder = tmp_path_factory.mktemp("collected")
    model = save_tiny_model(folder / "model", family="llama", n_layers=2)
    pairs = "  - {layers: 0-1, source: resid_mid, target: mlp_out}"
    manifest, run, _ = uninterrupted(folder, model, transcoders=pairs, tokens=256 * 8)
    return manifest, run


def call(*words: str) -> str:
    ended = CliRunner(env={"COLUMNS": "300"}).invoke(cli, [str(word) for word in words])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_run_is_as_good_without_its_rubbish(made: tuple[Path, Path]) -> None:
    manifest, run = made
    shown = {name: call(name, str(run)) for name in ("status", "metrics")}
    weights, tokens = finals(run), content(run / "tokens")
    call("registry", "gc", str(run), "--yes")
    assert not list(run.glob("transcoders/*/checkpoints/step-*"))
    assert not list((run / "tokens").glob("window-*"))
    assert {name: call(name, str(run)) for name in shown} == shown
    assert "things wrong" not in call("registry", "verify", str(run))
    assert "nothing to delete" in call("registry", "gc", str(run))
    assert "spliced" in call("eval", str(run), "--tokens", "64")
    code, printed = run_here(manifest, run.parent)
    assert code == 0 and "nothing left to train" in printed
    assert finals(run) == weights
    # And should a final/ be lost after all, it is trained anew.
    shutil.rmtree(next(run.glob("transcoders/L01*/final")))
    code, printed = run_here(manifest, run.parent)
    assert code == 0, printed
    assert finals(run) == weights and content(run / "tokens") == tokens
    assert "things wrong" not in call("registry", "verify", str(run))
