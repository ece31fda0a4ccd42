"""What only a GPU can show of the Triton kernels: none has run this yet (benchmarks/LOG.md)."""

import pytest
import torch

from mtc_core.statistics import measure_pair
from mtc_core.trainer import TranscoderTrainer
from tests.core import small

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def trained(kernels, steps=4, **train_changes):
    """A trainer on the GPU after some steps, of which the last are not logged."""
    x, y = (side.cuda() for side in small.rows(512, seed=1, extreme=8))
    train = small.train(kernels=kernels, log_every_steps=1000, **train_changes)
    trainer = TranscoderTrainer(small.spec(), train, measure_pair(x, y), device="cuda")
    for step in range(steps):
        trainer.step(*(side.cuda() for side in small.rows(seed=step, extreme=4)))
    return trainer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("extreme", ["mask", "bound", "keep"])
def test_no_step_waits_for_the_gpu(dtype, extreme):
    trainer = trained("triton", dtype=dtype, extreme=extreme)
    x, y = (side.cuda() for side in small.rows(seed=9, extreme=4))
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(x, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype,apart", [("float32", 1e-4), ("bfloat16", 0.2)])
def test_compiled_kernels_agree_with_torch(dtype, apart):
    ours, theirs = trained("triton", dtype=dtype), trained("torch", dtype=dtype)
    for name, tensor in theirs.weights.tensors().items():
        found = ours.weights.tensors()[name]
        assert (found - tensor).norm() < apart * tensor.norm(), name
    assert float(ours.threshold) == pytest.approx(float(theirs.threshold), rel=apart)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_steps_give_the_same_bits(dtype):
    states = [small.snapshot(trained("triton", dtype=dtype)) for _ in range(2)]
    small.same_bits(*states)


def test_a_run_continues_to_the_same_bits():
    whole = trained("triton", steps=6)
    state = small.snapshot(trained("triton", steps=3))
    again = TranscoderTrainer.from_state(whole.spec, whole.train, state, device="cuda")
    for step in range(3, 6):
        again.step(*(side.cuda() for side in small.rows(seed=step, extreme=4)))
    small.same_bits(again.state(), whole.state())
