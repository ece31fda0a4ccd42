"""Kernels beside those of others, on a CPU: that all solve the same problem, and what is said of
those that do not. What is loaded here stands in for files of other tools, which are theirs to give;
sparsify's own are in tests/conformance."""

import json

import pytest
import torch

from benchmarks import peer_kernels
from benchmarks.kernel_problem import SHAPES, Problem

TINY = ["--shape", "tiny", "--device", "cpu", "--rounds", "1", "--calls", "1"]
# By torch, under the names and with the arguments of sparsify, OpenAI and flex-sae.
STAND_IN = """
import torch

def xformers_embedding_bag(indices, weight, values):
    return (weight[indices] * values[..., None]).sum(1)

class TritonDecoderAutograd:
    @staticmethod
    def apply(indices, values, decoder):  # [d_out, d_sae]
        assert decoder.T.is_contiguous()
        return (decoder.T[indices] * values[..., None]).sum(1)

def triton_sparse_transpose_dense_matmul(indices, values, dense, N):
    sparse = torch.zeros(len(dense), N).scatter(1, indices, values)
    return sparse.T @ dense

def triton_topk_sae_loss(indices, weight, vals, bias, target):
    return ((weight[indices] * vals[..., None]).sum(1) + bias - target).pow(2).mean()

def triton_hierarchical_sae_loss(indices, weight, vals, bias, target):
    prefixes = (weight[indices] * vals[..., None]).cumsum(1) + bias
    return (prefixes - target[:, None]).pow(2).mean(), prefixes[:, -1]
"""


def test_all_take_the_same_step(tmp_path, capsys):
    beside, figures = tmp_path / "theirs.py", tmp_path / "figures.json"
    beside.write_text(STAND_IN)
    words = ["--kernels", "numba", "torch", "--beside", str(beside), "--json", str(figures)]
    assert peer_kernels.main([*TINY, *words]) == 0
    found = json.loads(figures.read_text())["kernels"]
    assert len(found) == 5 + 2 * 3  # of 1, 4 and 8 prefixes, which is all of a row's activations
    for name, one in found.items():
        assert one["apart"] < 1e-6, name
        assert min(*one["decoder"], *one["whole"]) > 0
    firsts = [name for name, one in found.items() if one["apart"] == 0]
    assert firsts == [
        "torch's embedding bag",
        "flex-sae's loss of all prefixes",
        "ours, numba, 4 prefixes",
    ]
    printed = capsys.readouterr().out
    assert "32 rows, width 256, 512 latents, k 8, float32" in printed
    assert all(name in printed for name in found)


def test_one_that_is_wrong_shows(tmp_path, capsys):
    beside = tmp_path / "theirs.py"
    beside.write_text(STAND_IN.replace(".pow(2).mean()\n", ".abs().mean()\n", 1))
    made = peer_kernels.steps(peer_kernels.arguments([*TINY, "--beside", str(beside)]))
    found = peer_kernels.measure(made, rounds=1, calls=1, device="cpu")
    assert found["flex-sae's TopK loss"]["apart"] > 0.1
    assert found["sparsify's embedding bag"]["apart"] < 1e-6


def test_in_bfloat16_they_agree_as_far_as_it_goes():
    made = peer_kernels.steps(
        peer_kernels.arguments([*TINY, "--dtype", "bfloat16", "--kernels", "torch"])
    )
    found = peer_kernels.measure(made, rounds=1, calls=1, device="cpu")
    assert 1e-6 < found["ours, torch, 1 prefix"]["apart"] < 0.02


def test_one_that_fails_says_why_and_the_others_go_on(tmp_path, capsys):
    beside = tmp_path / "theirs.py"
    beside.write_text("def xformers_embedding_bag(*_):\n    raise RuntimeError('wants a GPU')\n")
    assert peer_kernels.main([*TINY, "--beside", str(beside)]) == 1
    printed = capsys.readouterr().out
    assert "sparsify's embedding bag" in printed and "failed: RuntimeError: wants a GPU" in printed
    assert "ours, numba, 1 prefix" in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "holds none of the kernels"),
        ("import nowhere_to_be_found\n", "cannot be loaded"),
    ],
)
def test_a_file_that_is_none_of_theirs(tmp_path, capsys, text, said):
    beside = tmp_path / "theirs.py"
    beside.write_text(text)
    assert peer_kernels.main([*TINY, "--beside", str(beside)]) == 2
    assert said in (printed := capsys.readouterr().out) and str(beside) in printed


def test_a_file_that_is_not_there(tmp_path, capsys):
    for name in ("kernels.py", "notes.txt"):
        assert peer_kernels.main([*TINY, "--beside", str(tmp_path / name)]) == 2
        assert str(tmp_path / name) in capsys.readouterr().out


def test_where_the_first_fails_the_others_are_told(monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("not for this dtype")

    monkeypatch.setattr("benchmarks.kernels_of_others.F.embedding_bag", fails)
    assert peer_kernels.main(TINY) == 1
    printed = capsys.readouterr().out
    assert "failed: RuntimeError: not for this dtype" in printed and " x" not in printed
    assert "ours, numba, 4 prefixes" in printed


@pytest.mark.parametrize("option", ["--rounds", "--calls"])
def test_none_at_all_is_refused(option, capsys):
    with pytest.raises(SystemExit) as ended:
        peer_kernels.main([*TINY, option, "0"])
    assert ended.value.code == 2
    assert f"{option} 0: must be 1 or more" in capsys.readouterr().err


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peer_kernels.main([]) == 2
    assert "no CUDA device here" in capsys.readouterr().out


def test_each_row_is_on_once_in_each_part_and_some_latents_more_often():
    shape = SHAPES["peers"]
    problem = Problem.of(shape, "cpu")
    part = shape.d_sae // shape.k
    assert (problem.latents_BK // part == torch.arange(shape.k)).all()
    often = problem.latents_BK.flatten().bincount(minlength=shape.d_sae).view(shape.k, part)
    assert often[:, 0].min() > 5 * often[:, part // 2].float().mean()
    assert torch.equal(problem.latents_BK, Problem.of(shape, "cpu").latents_BK)
