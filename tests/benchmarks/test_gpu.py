"""The GPU's benchmark on a CPU: that it runs and counts right. Its figures need a GPU."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, gpu_bound
from benchmarks.gpu_workload import CONTEXT, RandomSchedule
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.sites import Site
from orchestrator.model_shapes import find_shape


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kernels_take_turns_on_a_tiny_shape(dtype, tmp_path, capsys):
    words = ["--shape", "tiny", "--device", "cpu", "--kernels", "numba", "torch", "--blocks", "1"]
    assert gpu.main([*words, "--dtype", dtype, "--json", str(tmp_path / "j")]) == 0
    found = json.loads((tmp_path / "j").read_text())
    assert found["kernels"].keys() == {"numba", "torch"}
    for one in found["kernels"].values():
        assert one["tokens_per_second"] > 0
        stages = one["stages_ms"]
        assert stages.keys() == set(gpu.STAGES)
        assert min(stages["forward"], stages["select"], stages["rows"], stages["update"]) > 0
        assert set(one["bounds_ms"]) < stages.keys() and min(one["bounds_ms"].values()) > 0
    assert 0 < found["apart"] < 1e-3
    printed = capsys.readouterr().out
    assert "of what the device allows" in printed and "weights of numba and torch differ" in printed


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "no CUDA device here" in capsys.readouterr().out


def test_goals_are_judged(monkeypatch):
    def with_rate(rate):
        kernels = {"triton": {"tokens_per_second": rate}}
        monkeypatch.setattr(gpu, "measure", lambda args: {"kernels": kernels})
        return gpu.main(["--shape", "gpt2", "--device", "cpu", "--goals"])

    monkeypatch.setattr(gpu, "report", lambda found: None)
    assert (with_rate(299_999), with_rate(300_000)) == (1, 0)


def test_bounds_are_those_of_the_cost_model():
    """GPT-2 small with the rates of an H200, worked out by hand: 496,000 tokens/s, of which the
    forward takes 11 %, encoders 14, selection 7, gathers 54, prefixes 4, Adam 10."""
    shape = find_shape("gpt2", "main", online=False)
    spec = TranscoderSpec(
        source=Site.at(0, "resid_mid"),
        target=Site.at(0, "mlp_out"),
        group_sizes=(1536, 1536, 3072, 6144),
        k=64,
    )
    train = TrainConfig(tokens=10**9, batch_tokens=8192, dtype="bfloat16")
    suite = SimpleNamespace(train=train, specs=[spec] * 12)
    found = gpu_bound.bounds(suite, shape, gpu_bound.Rates(790e12, 790e12, 4.3e12))
    whole = sum(found.values())
    assert 8192 / whole == pytest.approx(496_000, rel=0.005)
    shares = {name: round(100 * seconds / whole) for name, seconds in found.items()}
    # A fourth of the gathers and the prefixes are in `rows`, the other gathers and Adam in `update`
    assert shares == {"forward": 11, "encode": 14, "select": 7, "rows": 18, "update": 50}


def test_random_blocks_have_rows_of_every_position_but_the_first():
    block = RandomSchedule(rows=1000, vocabulary=50).block(3)
    assert block.ids_CT.shape == (8, CONTEXT) and block.ids_CT.min() >= 1
    assert len(set(block.flat_rows)) == 1000
    assert (block.flat_rows % CONTEXT).min() > 0
    again = RandomSchedule(rows=1000, vocabulary=50).block(3)
    assert (again.flat_rows == block.flat_rows).all()
