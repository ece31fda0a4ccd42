"""A run folder written by the real writers, without a model: one transcoder done, one in training,
one failed, one not begun."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from mtc_core.atomic import write_json_atomic
from mtc_core.config import TranscoderSpec
from mtc_core.workspace import Workspace
from orchestrator.cells.transcoder_run import TranscoderRun
from orchestrator.manifest import Manifest, load_manifest
from orchestrator.registry.index import open_index
from orchestrator.registry.invocations import begin
from orchestrator.run_folder.folder import RunFolder, resolve
from tests.core import small
from tests.orchestrator.manifests import write_manifest

STEPS = 20
LINES = {
    4: f"train: {{tokens: {64 * STEPS}, batch_tokens: 64, log_every_steps: 5}}",
    5: "defaults: {group_sizes: [8, 16, 24], k: 5, lr: 3e-3}",
    7: "  - {layers: 0-3, source: resid_mid, target: mlp_out}",
}
PINS = {"model": "sha256:1234", "dataset": None, "provider": "hf"}


def make_run(root: Path) -> Path:
    """root/t; its transcoders are of layers 0 (done), 1 (training), 2 (failed), 3 (waiting)."""
    root.mkdir(parents=True, exist_ok=True)
    path = write_manifest(root, LINES)
    manifest = load_manifest(path)
    folder = RunFolder(root, "t")
    resolved = {**resolve(manifest, 12, 1), "pins": PINS}
    folder.begin(resolved, path.read_text())
    specs = [TranscoderSpec.from_dict(spec) for spec in resolved["specs"].values()]
    sizes = {"d_in": small.D_IN, "d_out": small.D_OUT}
    write_json_atomic(folder.plan, {"transcoders": [{"id": spec.id, **sizes} for spec in specs]})
    invocation = begin(folder.path, {"backend": "local", "cells": 1, "overrides": []})
    done, training, failed, _ = (_run(manifest, folder, spec) for spec in specs)
    train(done, STEPS)
    _finish(done)
    train(training, 12)
    train(failed, 6)
    failed.fail("its loss is not finite")
    write_json_atomic(folder.path / "status.json", {"state": "stopped", "step": 12})
    invocation.end({"exit_code": 1, "outcome": "some failed", "step": 12, "rows_trained": 768})
    return folder.path


def transcoder(run: Path, layer: int) -> Path:
    return next(run.glob(f"transcoders/L{layer:02d}.*"))


def age(run: Path) -> None:
    """As if all of it had been written long ago: no file is as young as a tick of the clock."""
    for path in [run, *run.rglob("*")]:
        os.utime(path, (1e9, 1e9))


def ask(run: Path, query: str) -> list[dict[str, Any]]:
    with closing(open_index(run)) as index:
        index.row_factory = sqlite3.Row
        return [dict(row) for row in index.execute(query)]


def states(run: Path) -> str:
    """First letters: d, t, f, w."""
    return "".join(row["state"][0] for row in ask(run, "SELECT state FROM transcoders"))


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def train(run: TranscoderRun, steps: int) -> None:
    """Steps from where it stands, on rows that depend on the step alone; a checkpoint each five,
    and at the end."""
    run.resume()
    run.begin(_rows(run, 512, 1))
    for step in range(run.step_index, steps):
        run.step(step, _rows(run, small.BATCH, 1000 + step))
        if step % 5 == 4:
            run.checkpoint()
    run.checkpoint()


def _run(manifest: Manifest, folder: RunFolder, spec: TranscoderSpec) -> TranscoderRun:
    config = manifest.train.config()
    return TranscoderRun(spec, config, folder.transcoder(spec.id), "cpu", 2, Workspace())


def _finish(run: TranscoderRun) -> None:
    rows = _rows(run, 256, 2)
    run.prepare_held_out(256)
    run.calibrate(rows)
    assert run.held_out is not None
    run.held_out.settle()
    run.test(_rows(run, 256, 3))
    run.save_final({})


def _rows(run: TranscoderRun, n: int, seed: int) -> dict:
    x, y = small.rows(n, seed=seed)
    return {run.spec.source.tensor: x, run.spec.target.tensor: y}
