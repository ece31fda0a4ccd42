"""`init_from`: a run that starts from the final weights of another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.messages import ManifestError
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import SignalAfter, finals, run_here, run_in_child, uninterrupted

MORE = ("name=more", "train.tokens=20_480", "init_from=small", "defaults.k=6")
ONE_PAIR = "  - {layers: 0, source: resid_mid, target: mlp_out}\n"


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A finished run of one transcoder, in a folder with its manifest and model."""
    folder = tmp_path_factory.mktemp("first")
    model = save_tiny_model(folder / "model", family="llama", n_layers=1)
    uninterrupted(folder, model, transcoders=ONE_PAIR, tokens=256 * 80)
    return folder


def curve(run: Path) -> list[float]:
    (metrics,) = run.glob("transcoders/*/metrics.jsonl")
    return [json.loads(line)["fvu"] for line in metrics.read_text().splitlines()]


def config(run: Path) -> dict:
    (path,) = run.glob("transcoders/*/final/config.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def more(first) -> Path:
    code, printed = run_here(first / "small.yaml", first, *MORE)
    assert code == 0, printed
    return first / "more"


def test_it_starts_where_the_other_ended_and_says_from_what(first, more):
    before, after = curve(first / "small"), curve(more)
    learned = before[0] - before[-1]
    assert learned > 0.1 and after[0] < before[-1] + 0.2 * learned
    (source,) = (first / "small").glob("transcoders/*/final")
    pinned = json.loads((more / "resolved.json").read_text())["pins"]["init_from"]
    (id,) = pinned
    assert Path(pinned[id]["folder"]) == source
    assert config(more)["init_from"] == pinned[id] and config(first / "small")["init_from"] is None
    assert f"{id} starts from {source}" in (more / "log.txt").read_text()
    digests = json.loads((source / "sha256.json").read_text())
    assert pinned[id]["sha256"] == digests["weights.safetensors"]


def test_killed_and_continued_it_comes_to_the_same_bits(first, more, tmp_path):
    shutil.copytree(first / "small", tmp_path / "small")
    options = (*MORE[:2], f"init_from={first}/small", MORE[3])
    killed = run_in_child(first / "small.yaml", tmp_path, SignalAfter(20, 0.02), *options)
    assert killed == -9
    # The weights are needed until the first checkpoint, and that one was written long ago.
    moved = (first / "small").rename(first / "elsewhere")
    try:
        assert run_in_child(first / "small.yaml", tmp_path, None, *options) == 0
    finally:
        moved.rename(first / "small")
    assert finals(tmp_path / "more") == finals(more)


def test_weights_that_are_missing_or_changed_before_the_first_checkpoint_are_told(
    first, tmp_path, monkeypatch
):
    told = (
        r"^--set init_from=nothing: init_from: nothing: no run folder here and no run of that name"
    )
    with pytest.raises(ManifestError, match=told):
        run_here(first / "small.yaml", tmp_path, *MORE[:2], "init_from=nothing")
    assert not (tmp_path / "more").exists()
    shutil.copytree(first / "small", tmp_path / "small")
    with monkeypatch.context() as patch:  # a run that begins, and gets no further
        patch.setattr("orchestrator.driver._train", lambda *_: None)
        run_here(first / "small.yaml", tmp_path, *MORE)
    (weights,) = tmp_path.glob("small/transcoders/*/final/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ConfigError, match="has changed since this run began"):
        run_here(first / "small.yaml", tmp_path, *MORE)


def test_what_the_other_run_lacks_is_listed(first, tmp_path):
    options = ("name=other", f"init_from={first}/small", "defaults.group_sizes=[16, 16]")
    with pytest.raises(ManifestError, match=r"has no finished transcoder for\n  0\.resid_mid -> "):
        run_here(first / "small.yaml", tmp_path, *options)
    assert not (tmp_path / "other").exists()


def test_what_the_other_run_may_have_trained_on_is_not_held_out(first, tmp_path, monkeypatch):
    """Its figures would be of text that the weights have seen."""
    options = (*MORE[:2], f"init_from={first}/small", "data.holdout_tokens=8192")
    told = r"documents that this run holds out were not held out by .*holdout_tokens: 2048"
    with pytest.raises(ConfigError, match=told):
        run_here(first / "small.yaml", tmp_path, *options)
    assert not list(tmp_path.glob("more/transcoders/*/checkpoints/step-*"))
    with monkeypatch.context() as patch:  # one that an older version has begun goes on
        patch.setattr("orchestrator.text_job.check_held_out", lambda *_: None)
        assert run_here(first / "small.yaml", tmp_path, *options)[0] == 0
    for final in tmp_path.glob("more/transcoders/*/final"):
        shutil.rmtree(final)  # its last checkpoint stays
    assert run_here(first / "small.yaml", tmp_path, *options)[0] == 0
