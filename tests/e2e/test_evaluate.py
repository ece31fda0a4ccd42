"""`eval` on a real run: what it measures, resumed and repeated, and what it refuses."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from click.testing import CliRunner

from mtc_core import load_suite
from mtc_core.errors import MtcError
from orchestrator.cli import cli
from orchestrator.evaluating.evaluate import TooSlow, Wanted, evaluate
from orchestrator.evaluating.listener import QUIET, Listener
from orchestrator.evaluating.results import QUALITY, SPLICE
from orchestrator.evaluating.texts import held_test_half, scored, spread
from orchestrator.run_folder.folder import RunFolder
from orchestrator.status_file import read_status
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, run_in_child, write_manifest

LAYERS = "  - {layers: 0-2, source: resid_mid, target: mlp_out}"
SWEEP = "  - {source: 0.resid_mid, target: 0.mlp_out, k: [2, 4]}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), family="llama", n_layers=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model):
    """A run without its measurement at the end, and what it printed."""
    root = tmp_path_factory.mktemp("finished")
    manifest = write_manifest(root, model, transcoders=LAYERS, tokens=256 * 12)
    code, printed = run_here(manifest, root, "eval.spliced_tokens=0")
    assert code == 0, printed
    assert "spliced" not in printed and not (root / "small" / "evaluations").exists()
    return root / "small"


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "small")
    return RunFolder(tmp_path, "small")


def test_a_run_ends_with_its_suite_in_the_model(tmp_path, model):
    manifest = write_manifest(tmp_path, model, transcoders=LAYERS, tokens=256 * 12)
    code, printed = run_here(manifest, tmp_path)
    assert code == 0
    assert "spliced, on 9" in printed and "all together" in printed, printed
    results = json.loads((tmp_path / "small/evaluations/test/splice.json").read_text())
    assert list(results["transcoders"]) == list(load_suite(tmp_path / "small"))
    assert results["joint"]["source"] == "live" and results["prefixes"] is False
    again, printed = run_here(manifest, tmp_path)
    assert again == 0 and "nothing left to train" in printed and "all together" in printed


def test_the_test_half_measured_again_is_what_the_trainers_measured(run):
    """The user's own text is the test half here, so that both paths see the same rows."""
    suite = load_suite(run.path)
    half = held_test_half(run)
    monkey = evaluate_text(run, half)
    for id in suite:
        trained = json.loads((run.transcoder(id).evaluation).read_text())
        again = monkey["transcoders"][id]
        for population in ("ordinary", "all"):
            for name, value in again[population].items():
                assert value == pytest.approx(trained[population][name], rel=1e-6), name
        assert again["extreme_row_share"] == trained["extreme_row_share"]


def evaluate_text(run, text):
    """quality.json of given contexts."""
    import orchestrator.evaluating.evaluate as module

    patch = pytest.MonkeyPatch()
    patch.setattr(module, "own_text", lambda *_: type(text)("text-00000000", "x", text.contexts))
    try:
        return evaluate(run, Wanted(text="x", tokens=32, prefixes=False), QUIET).read(QUALITY)
    finally:
        patch.undo()


@pytest.mark.parametrize("after", [1, 9, 23])
def test_interrupted_and_called_again_it_gives_the_same_figures(run, monkeypatch, after):
    monkeypatch.setattr("mtc_core.splice.measure.LOGITS", 32 * 258 * 2)  # two contexts a chunk
    monkeypatch.setattr("orchestrator.evaluating.results.SAVE_S", 0.0)
    wanted = Wanted(tokens=200)
    whole = evaluate(run, wanted, QUIET).read(SPLICE)
    shutil.rmtree(run.evaluations)
    told = []

    def progress(what, share, left):
        told.append(what)
        if told.count("splicing") > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(run, wanted, Listener(told.append, progress, lambda: None))
    assert not (run.evaluations / "test" / SPLICE).exists()
    listener = Listener(told.append, lambda *_: None, lambda: None)
    assert evaluate(run, wanted, listener).read(SPLICE) == whole
    assert ("goes on where it was interrupted" in told) == (after > 20)
    assert [path.name for path in (run.evaluations / "test").iterdir()] == [SPLICE]


def test_what_is_measured_is_not_measured_again_and_more_of_it_counts(run, monkeypatch):
    first = evaluate(run, Wanted(tokens=200), QUIET).read(SPLICE)
    monkeypatch.setattr(
        "orchestrator.evaluating.subject.load_model", lambda *a, **k: pytest.fail("loaded")
    )
    for wanted in (Wanted(tokens=200), Wanted(tokens=50), Wanted(tokens=50, prefixes=False)):
        assert evaluate(run, wanted, QUIET).read(SPLICE) == first
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        evaluate(run, Wanted(tokens=400), QUIET)


def test_results_of_other_weights_are_measured_again(run):
    first = evaluate(run, Wanted(tokens=60, prefixes=False), QUIET).read(SPLICE)
    id = next(iter(first["transcoders"]))
    tc = load_suite(run.path)[id]
    tc.b_dec += 1
    tc.save(run.transcoder(id).final)
    second = evaluate(run, Wanted(tokens=60, prefixes=False), QUIET).read(SPLICE)
    assert second["transcoders"][id]["kl"] > first["transcoders"][id]["kl"]


def test_a_text_of_the_users_has_results_of_its_own(run, tmp_path):
    (tmp_path / "mine.txt").write_text("\n\n".join(f"Sentence {i} of mine." for i in range(300)))
    command = ["eval", str(run.path), "--text", str(tmp_path / "mine.txt"), "--tokens", "60"]
    printed = CliRunner().invoke(cli, command)
    assert printed.exit_code == 0, printed.output
    assert "mine.txt: " in printed.output and "CE + by prefix" in printed.output
    (folder,) = run.evaluations.iterdir()
    assert folder.name.startswith("text-")
    assert {path.name for path in folder.iterdir()} == {QUALITY, SPLICE}
    as_json = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert set(as_json) == {"quality", "splice"}
    quality = next(iter(as_json["quality"]["transcoders"].values()))
    assert quality["all"]["rows"] == as_json["quality"]["text"]["rows"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("no-such.txt", "no-such.txt"), ("short.txt", "--text short.txt has 4 tokens")],
)
def test_a_text_that_gives_nothing_is_one_message(run, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("one")
    printed = CliRunner().invoke(cli, ["eval", str(run.path), "--text", text])
    assert printed.exit_code == 2
    assert message in printed.output and "Traceback" not in printed.output


def test_a_sweep_has_no_joint_figure_and_says_why(tmp_path, model):
    manifest = write_manifest(tmp_path, model, transcoders=SWEEP, tokens=256 * 12)
    code, printed = run_here(manifest, tmp_path)
    assert code == 0
    assert "not spliced all together: 2 transcoders predict 0.mlp_out" in printed


def test_without_its_reference_a_transcoder_is_left_out_and_the_rest_goes_on(run):
    first, *others = sorted(run.path.glob("transcoders/*/final/reference.safetensors"))
    first.unlink()
    found = evaluate(run, Wanted(tokens=60), QUIET).read(SPLICE)
    assert len(found["transcoders"]) == 2
    (reason,) = found["left_out"].values()
    assert "has no reference.safetensors" in reason
    for path in others:
        path.unlink()
    with pytest.raises(MtcError, match="delete that final/ and run the manifest again"):
        evaluate(run, Wanted(tokens=70), QUIET)
    # A lossless export needs none, and a lossy one says what is missing.
    out = run.path.parent / "out"
    command = ["export", str(run.path), "--out", str(out), "--format"]
    assert CliRunner().invoke(cli, [*command, "saelens"]).exit_code == 0


def test_nothing_that_goes_wrong_in_the_measurement_makes_a_run_fail(tmp_path, model, monkeypatch):
    manifest = write_manifest(tmp_path, model, transcoders=LAYERS, tokens=256 * 12)
    monkeypatch.setattr(
        "orchestrator.evaluating.evaluate.SpliceMeasurement", lambda *a: {}["a bug of ours"]
    )
    code, printed = run_here(manifest, tmp_path)
    assert code == 0 and "not spliced: KeyError: 'a bug of ours'; traceback in" in printed
    assert "a bug of ours" in (tmp_path / "small" / "log.txt").read_text()
    monkeypatch.undo()
    results = tmp_path / "small" / "evaluations" / "test"
    for damaged in (b"{", b"[]", b"{}"):
        results.mkdir(parents=True, exist_ok=True)
        (results / SPLICE).write_bytes(damaged)
        code, printed = run_here(manifest, tmp_path)
        assert code == 0 and "all together" in printed


class TerminatedWhileSplicing:
    """The driver gets SIGTERM when all that is left is to splice the suite."""

    def plant(self) -> None:
        from orchestrator.evaluating import evaluate as evaluating

        def evaluate(run, wanted, listener):
            os.kill(os.getpid(), signal.SIGTERM)
            listener.check()

        evaluating.evaluate = evaluate  # type: ignore[assignment]


def test_a_run_interrupted_while_splicing_is_stopped_and_then_done(tmp_path, model):
    manifest = write_manifest(tmp_path, model, tokens=256 * 4, transcoders=LAYERS)
    assert run_in_child(manifest, tmp_path, TerminatedWhileSplicing()) == 143
    status = read_status(tmp_path / "small")
    assert (status["state"], status["step"]) == ("stopped", 4)
    code, printed = run_here(manifest, tmp_path)
    assert code == 0 and "all together" in printed
    assert read_status(tmp_path / "small")["state"] == "done"


def test_results_of_fewer_transcoders_are_not_shown_for_those_of_all(run):
    finals = sorted(run.path.glob("transcoders/*/final"))
    finals[0].rename(finals[0].with_name("later"))
    evaluate(run, Wanted(tokens=60, prefixes=False), QUIET)
    shown = CliRunner().invoke(cli, ["metrics", str(run.path)])
    assert "spliced, on" in shown.output and "2 at once" in shown.output
    finals[0].with_name("later").rename(finals[0])
    shown = CliRunner().invoke(cli, ["metrics", str(run.path)])
    assert "spliced, on" not in shown.output
    assert f"`mtc-orchestrate eval {run.path}` measures these" in shown.output


def test_a_larger_measurement_is_not_replaced_by_a_smaller_one(run):
    large = evaluate(run, Wanted(tokens=300, prefixes=False), QUIET).read(SPLICE)
    small = evaluate(run, Wanted(tokens=50, prefixes=True), QUIET).read(SPLICE)
    assert small["tokens"] == large["tokens"] and small["prefixes"]
    assert evaluate(run, Wanted(tokens=300, prefixes=False), QUIET).read(SPLICE) == small


def test_a_folder_that_cannot_be_written_is_told_before_the_model_is_loaded(run, monkeypatch):
    (run.path / "evaluations").write_text("in the way")
    monkeypatch.setattr(
        "orchestrator.evaluating.subject.load_model", lambda *a, **k: pytest.fail("loaded")
    )
    with pytest.raises(MtcError, match="cannot be written"):
        evaluate(run, Wanted(tokens=60), QUIET)


def test_a_suite_that_does_not_fit_is_told_before_it_is_loaded(run, monkeypatch):
    """What is counted are logits of a context of this run and this model."""
    counted = []

    def working_bytes(*sizes):
        counted.append(sizes)
        return 10**15

    monkeypatch.setattr("orchestrator.evaluating.subject.working_bytes", working_bytes)
    with pytest.raises(MtcError, match=r"about 1000000\.0 GB on cpu \(logits: 1.*\), which has"):
        evaluate(run, Wanted(tokens=60), QUIET)
    assert counted == [(32, 258)]


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_reconstruction_goes_on_to_the_same_figures(run, monkeypatch, after):
    """Of three passes; the last one leaves nothing to do but the end."""
    monkeypatch.setattr("orchestrator.evaluating.results.SAVE_S", 0.0)
    monkeypatch.setattr("orchestrator.evaluating.texts.OWN_TOKENS", 3 * 16 * 32)
    wanted = Wanted(text="python-docs", tokens=60, prefixes=False)
    whole = evaluate(run, wanted, QUIET).read(QUALITY)
    shutil.rmtree(run.evaluations)
    told = []

    def check():
        if told.count("reconstructing") == after:
            raise KeyboardInterrupt

    listener = Listener(lambda text: None, lambda what, *_: told.append(what), check)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, wanted, listener)
    assert evaluate(run, wanted, QUIET).read(QUALITY) == whole


def test_patience_ends_before_the_measurement_does(run):
    with pytest.raises(TooSlow):
        evaluate(run, Wanted(tokens=500, patience_s=1e-9), QUIET)


def test_a_run_without_a_finished_transcoder_is_told_so(tmp_path, model):
    manifest = write_manifest(tmp_path, model, transcoders=LAYERS, tokens=256 * 12)
    assert run_here(manifest, tmp_path, "eval.spliced_tokens=0")[0] == 0
    for final in tmp_path.glob("small/transcoders/*/final"):
        shutil.rmtree(final)
    printed = CliRunner().invoke(cli, ["eval", str(tmp_path / "small")])
    assert printed.exit_code == 2 and "no finished transcoder yet" in printed.output


def test_a_signal_ends_it_and_the_same_command_goes_on(run, monkeypatch):
    import orchestrator.interrupts as module

    def stop(self):
        self.signal_number = signal.SIGTERM
        raise module.Interrupted

    monkeypatch.setattr(module.Interrupt, "check", stop)
    printed = CliRunner().invoke(cli, ["eval", str(run.path), "--tokens", "60"])
    assert printed.exit_code == 128 + signal.SIGTERM
    assert "the same command goes on" in printed.output
    monkeypatch.undo()
    assert CliRunner().invoke(cli, ["eval", str(run.path), "--tokens", "60"]).exit_code == 0


def test_contexts_are_spread_over_the_whole_text(run):
    half = held_test_half(run).contexts
    chosen = spread(half, 100)
    assert 100 <= scored(chosen) < 200
    assert np.array_equal(chosen.ids_CT[0], half.ids_CT[0])
    assert np.array_equal(chosen.ids_CT[-1], half.ids_CT[-1])
    assert scored(spread(half, 10**9)) == scored(half)
