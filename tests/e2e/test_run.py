"""`run` and the commands that look at a run, on a real if small one."""

import json
import re
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from mtc_core import load_suite
from mtc_core.checkpoint import STATE, checkpoint_paths
from mtc_core.errors import ModelError
from orchestrator import prepare
from orchestrator.cells import forwarder
from orchestrator.cells.transcoder_run import TranscoderRun
from orchestrator.cli import cli
from orchestrator.model_shapes import find_shape
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import finals, run_here, write_manifest


def command(*words) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_ends_with_a_table_and_a_suite_that_loads(reference):
    _, run, printed = reference
    suite = load_suite(run)
    assert len(suite) == 4
    for id, transcoder in suite.items():
        assert id in printed and transcoder.spec.id == id
        assert transcoder.provenance["model"]["commit"].startswith("sha256:")
        rows = transcoder.W_dec.norm(dim=1)
        assert (rows - 1).abs().max() < 1e-6
    assert "unembedding 0" in printed and "\nresident: " in printed


def test_what_comes_between_training_and_held_out_rows_is_calibration(model, tmp_path, monkeypatch):
    """Ridges are fitted then, which takes long: no stage had it, and speed was told too low."""
    prepare_held_out = TranscoderRun.prepare_held_out

    def slowly(self, rows):
        time.sleep(0.5)
        prepare_held_out(self, rows)

    monkeypatch.setattr(TranscoderRun, "prepare_held_out", slowly)
    code, printed = run_here(write_manifest(tmp_path, model), tmp_path)
    assert code == 0, printed
    (ended,) = tmp_path.glob("small/invocations/*.end.json")
    assert json.loads(ended.read_bytes())["seconds"]["calibrate"] > 4 * 0.5


def test_twelve_transcoders_share_one_forward(tmp_path, monkeypatch):
    """Counted by hooks of this test's own on the model that the run loads."""
    model = save_tiny_model(tmp_path / "model", family="llama", n_layers=8)
    counts = dict.fromkeys(("first", "last needed", "beyond", "unembedding"), 0)
    load = forwarder.load_model

    def load_and_hook(*args, **kwargs):
        loaded = load(*args, **kwargs)
        layers = loaded.model.model.layers
        modules = (layers[0], layers[5], layers[6], loaded.model.lm_head)
        for name, module in zip(counts, modules, strict=True):

            def count(*_, name=name):
                counts[name] += 1

            module.register_forward_pre_hook(count)
        return loaded

    monkeypatch.setattr(forwarder, "load_model", load_and_hook)
    twelve = "  - {layers: 0-5, source: resid_mid, target: mlp_out, k: [3, 5]}"
    manifest = write_manifest(tmp_path, model, name="twelve", transcoders=twelve, tokens=256 * 8)
    code, printed = run_here(manifest, tmp_path)
    assert code == 0 and len(load_suite(tmp_path / "twelve")) == 12
    passes = int(re.search(r"([\d,]+) forward passes in all", printed)[1].replace(",", ""))
    seen = passes + 1  # and the rehearsal
    assert counts == {"first": seen, "last needed": seen, "beyond": 0, "unembedding": 0}
    assert f"the first block ran {passes} times, the last one needed {passes}" in printed
    assert f"; separate runs would have needed {12 * passes}" in printed


def test_running_a_finished_manifest_again_changes_nothing(reference):
    manifest, run, _ = reference
    before = finals(run)
    code, printed = run_here(manifest, run.parent)
    assert code == 0 and "nothing left to train" in printed
    assert finals(run) == before


def test_a_changed_manifest_is_refused_with_the_difference(reference):
    manifest, run, _ = reference
    before = finals(run)
    result = CliRunner().invoke(
        cli, ["run", str(manifest), "--root", str(run.parent), "--set", "train.lr=5e-4"]
    )
    assert result.exit_code == 2
    assert "train.lr: was 0.001, now 0.0005" in result.output
    assert finals(run) == before


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(reference, model, tmp_path):
    manifest = write_manifest(tmp_path, model, checkpoint_minutes=0.0001)
    _, run, _ = reference
    assert run_here(manifest, tmp_path)[0] == 0
    folder = next((tmp_path / "small" / "transcoders").iterdir())
    newest = checkpoint_paths(folder / "checkpoints")[-1]
    content = bytearray((newest / STATE).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / STATE).write_bytes(content)
    for path in (folder / "final").iterdir():
        path.unlink()
    (folder / "final").rmdir()
    code, printed = run_here(manifest, tmp_path)
    assert code == 0 and f"{newest / STATE} is damaged" in printed
    assert finals(tmp_path / "small") == finals(run)


def test_a_transcoder_that_diverges_is_stopped_and_the_rest_goes_on(model, tmp_path):
    pairs = """\
  - {layers: 0, source: resid_mid, target: mlp_out}
  - {layers: 1, source: resid_mid, target: mlp_out, lr: 1e38}"""
    manifest = write_manifest(tmp_path, model, transcoders=pairs)
    code, printed = run_here(manifest, tmp_path)
    assert code == 1
    assert "lower its lr (or train.lr)" in printed
    assert next(iter(load_suite(tmp_path / "small"))).startswith("L00.")
    assert len(load_suite(tmp_path / "small")) == 1
    assert run_here(manifest, tmp_path)[0] == 1


def test_a_transcoder_without_finite_figures_is_stopped_and_the_rest_is_saved(
    model, tmp_path, monkeypatch
):
    """An overflow that shows only on held-out text."""
    rows_of = forwarder.Forwarder._holdout_rows

    def spoilt(self, portion):
        rows = rows_of(self, portion)
        rows["blocks.1.hook_mlp_out"][0, 0] = float("inf")
        return rows

    monkeypatch.setattr(forwarder.Forwarder, "_holdout_rows", spoilt)
    code, printed = run_here(write_manifest(tmp_path, model), tmp_path)
    assert code == 1 and "activations are not finite" in printed
    assert sorted(id[:3] for id in load_suite(tmp_path / "small")) == ["L00", "L00", "L00"]


def test_a_model_of_another_shape_than_planned_is_refused(model, tmp_path, monkeypatch):
    planned = replace(find_shape(str(model), "main", online=False), n_layers=9)
    monkeypatch.setattr(prepare, "needed_shape", lambda _: planned)
    with pytest.raises(ModelError, match="has 3 layers of width 32, but was planned with 9"):
        run_here(write_manifest(tmp_path, model), tmp_path)


def test_status_list_and_metrics_tell_the_run(reference):
    _, run, _ = reference
    root = run.parent
    state = json.loads(command("status", run, "--json"))
    assert state["state"] == "done" and state["step"] == state["steps"] == 40
    assert {row["state"] for row in state["transcoders"]} == {"done"}
    assert "done" in command("status", "small", "--root", root)
    assert [s["run"] for s in json.loads(command("list", "--root", root, "--json"))] == [str(run)]
    assert "4/4" in command("list", "--root", root)
    figures = json.loads(command("metrics", run, "--json"))
    assert len(figures) == 4 and all(row["ordinary"]["fvu"] > 0 for row in figures)
    lines = json.loads(command("metrics", run, "L01", "--json"))
    assert [line["step"] for line in lines] == [0, 5, 10, 15, 20, 25, 30, 35, 39]
    assert "FVU by prefix" in command("metrics", run, "L01")


def test_an_unknown_run_or_id_says_where_to_look(reference):
    _, run, _ = reference
    result = CliRunner().invoke(cli, ["status", "nowhere", "--root", str(run.parent)])
    assert result.exit_code == 2 and "mtc-orchestrate list" in result.output
    result = CliRunner().invoke(cli, ["metrics", str(run), "L07"])
    assert result.exit_code == 2 and "no transcoder whose id begins with 'L07'" in result.output
