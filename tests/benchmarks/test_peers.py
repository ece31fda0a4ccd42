"""Which runs are made: of a round, and of other learning rates."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import peers
from benchmarks.peer_runs import Outcome
from benchmarks.peer_workload import Workload
from benchmarks.peers_environment import peers_variables

WORKLOAD = Workload(folder=Path("nowhere"), text="a.txt", d_model=576, special_ids=[0])


def outcome(run, **facts):
    return Outcome(
        run=run, tokens_per_second=1.0, peak_pss_bytes=1, processes_at_peak={}, wall_s=1.0,
        rows=1, weights=Path("weights"), facts=facts,
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """What would be run, instead of running it."""
    seen = []

    def note(run, workload, folder, python):
        seen.append((run, folder.name))
        return outcome(run)

    monkeypatch.setattr(peers, "run_tool", note)
    return seen


def test_each_tool_is_tried_at_multiples_of_its_own_default(asked):
    args = peers.arguments(["--lrs", "2", "0.5", "--dtype", "bfloat16", "--sparsify-bfloat16"])
    runs = peers.wanted(args)
    assert list(runs) == ["ours", "sparsify", "sparsify-bfloat16", "saelens"]
    done = [outcome(run, lr=0.01) for run in runs.values()]
    trials = peers.lr_trials(args, WORKLOAD, Path("root"), Path("python"), done + done)
    ours = 16 * 2e-4 / (4608 / 16384) ** 0.5  # of a run as short as this one
    assert [(run.tool, run.dtype, run.lr, name) for run, name in asked] == [
        ("ours", "bfloat16", 2 * ours, "ours-lr-2"),
        ("ours", "bfloat16", 0.5 * ours, "ours-lr-0.5"),
        ("sparsify", "float32", 0.02, "sparsify-lr-2"),
        ("sparsify", "float32", 0.005, "sparsify-lr-0.5"),
    ]
    assert [trial.run.lr is None for trial in trials] == [True, False, False] * 2
    assert {run.steps for run, _ in asked} == {args.steps}, "equal tokens"


def test_without_learning_rates_the_first_round_alone_is_judged(asked):
    args = peers.arguments(["--only", "ours"])
    done = [outcome(run) for run in peers.wanted(args).values()]
    assert peers.lr_trials(args, WORKLOAD, Path("root"), Path("python"), done + done) == done
    assert asked == []


def test_the_default_learning_rate_of_ours_goes_by_its_steps():
    long = 2e-4 / (4608 / 16384) ** 0.5
    for steps, times in (("40", 16), ("12000", 5), ("300000", 1)):
        (ours,) = peers.wanted(peers.arguments(["--only", "ours", "--steps", steps])).values()
        assert peers.default_lr(outcome(ours), WORKLOAD) == pytest.approx(times * long)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "10"], "--steps 10: must be a multiple of 4"),
        (["--saelens-steps", "4"], "--saelens-steps 4: no step is left after --warmup 4"),
        (["--warmup", "2"], "--warmup 2: must be a multiple of 4"),
        (["--batch-tokens", "2000"], "--batch-tokens 2000: must be a multiple of a context's 128"),
        (["--batch-tokens", "0"], "--batch-tokens 0: must be a multiple"),
        (["--k", "0"], "--k 0: must be 1 or more"),
        (["--device", "cuda", "--sparsify-bfloat16"], "--sparsify-bfloat16: of a CPU"),
    ],
)
def test_what_cannot_be_run_or_timed_is_refused(words, said, capsys):
    with pytest.raises(SystemExit):
        peers.arguments(words)
    assert said in capsys.readouterr().err


def test_on_a_gpu_all_are_given_one_card_and_one_dtype():
    words = ["--device", "cuda", "--dtype", "bfloat16", "--kernels", "triton", "--warmup", "8"]
    runs = peers.wanted(peers.arguments([*words, "--saelens-steps", "24"]))
    assert {run.dtype for run in runs.values()} == {"bfloat16"}
    assert [run.kernels for run in runs.values()] == ["triton", None, None], "of ours alone"
    manifest = WORKLOAD.manifest("ours", runs["ours"])
    assert manifest["resources"]["device"] == "cuda:0"
    assert manifest["train"]["kernels"] == "triton"
    for name, steps in (("sparsify", 40), ("saelens", 24)):
        given = WORKLOAD.given(runs[name], Path("out"))
        assert (given["device"], given["warmup"], given["steps"]) == ("cuda", 8, steps)
        assert "SPARSIFY_DISABLE_TRITON" not in peers_variables(Path("folder"), 2, given["device"])
    assert peers_variables(Path("folder"), 2)["SPARSIFY_DISABLE_TRITON"] == "1"


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["peers", "--device", "cuda"])
    assert peers.main() == 2
    assert "no CUDA device here" in capsys.readouterr().err
