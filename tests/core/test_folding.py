"""Folding changes units, never results; calibration gives k latents a row."""

import pytest
import torch

from mtc_core.folding import fold
from mtc_core.held_out import HeldOut
from mtc_core.objective import Weights
from mtc_core.statistics import measure_pair
from mtc_core.trainer import TranscoderTrainer
from tests.core import small


def far_rows(n, seed, d_in=64, d_out=48):
    """Raw rows as models have them: off centre, of very different scales in x and y."""
    x, y = small.rows(n, seed, d_in=d_in, d_out=d_out)
    return 7 * x + 40, 0.02 * y - 1


def trained(dtype=torch.float32, steps=40, skip=False):
    spec = small.spec(group_sizes=(64, 192, 256), k=16, skip=skip)
    trainer = TranscoderTrainer(spec, small.train(), measure_pair(*far_rows(2048, 1)), dtype=dtype)
    for i in range(steps):
        trainer.step(*far_rows(256, 100 + i))
    generator = torch.Generator().manual_seed(0)
    for bias in (trainer.weights.b_enc, trainer.weights.b_dec):
        bias += 0.1 * torch.randn(bias.shape, generator=generator).to(dtype)
    return trainer


def network(w, x, threshold, active=None):
    """Activations, output and pre-activations of given weights on given rows."""
    pre = x @ w["W_enc"].T + w["b_enc"]
    active = pre > threshold if active is None else active
    acts = pre.relu() * active
    out = acts @ w["W_dec"] + w["b_dec"]
    return acts, out + x @ w["W_skip"].T if "W_skip" in w else out, pre


def in_training_space(trainer, x):
    s = trainer.statistics
    w = {k: v.double() for k, v in trainer.weights.tensors().items()}
    theta = float(trainer.threshold)
    acts, out, pre = network(w, s.a * (x.double() - s.mu_I), theta)
    return acts / s.c, out / s.c + s.nu_O, pre / s.c, theta / s.c


@pytest.mark.parametrize("skip", [False, True])
def test_folded_in_fp64_equals_the_training_network_to_1e_12(skip):
    trainer = trained(torch.float64, skip=skip)
    s = trainer.statistics
    assert not 0.2 < s.a / s.c < 5, "equal scales would hide a mistake"
    x, _ = far_rows(512, 9)
    wanted_acts, wanted, _, theta = in_training_space(trainer, x)
    acts, out, _ = network(fold(trainer.weights, s), x.double(), theta)
    assert torch.equal(acts > 0, wanted_acts > 0) and int((acts > 0).sum()) > 1000
    assert (acts - wanted_acts).norm() <= 1e-12 * wanted_acts.norm()
    assert (out - wanted).norm() <= 1e-12 * wanted.norm()


@pytest.mark.parametrize("skip", [False, True])
def test_folded_in_fp32_agrees_at_the_same_active_set_and_hardly_a_latent_changes_side(skip):
    trainer = trained(skip=skip)
    x, _ = far_rows(4096, 9)
    wanted_acts, wanted, pre, theta = in_training_space(trainer, x)
    folded = fold(trainer.weights, trainer.statistics)
    _, out, folded_pre = network(folded, x, theta, wanted_acts > 0)
    difference = (out.double() - wanted).norm(dim=1)
    assert (difference / wanted.norm(dim=1)).max() <= 1e-5
    flipped = (folded_pre > theta) != (pre > theta)
    assert int(flipped.sum()) < 1e-5 * flipped.numel()
    assert ((pre[flipped] - theta).abs() <= 1e-4 * theta).all()


def test_folding_leaves_decoder_rows_unit_and_the_training_weights_alone():
    trainer = trained(steps=5)
    before = {k: v.clone() for k, v in trainer.weights.tensors().items()}
    folded = fold(trainer.weights, trainer.statistics)
    assert (folded["W_dec"].double().norm(dim=1) - 1).abs().max() < 1e-6
    for tensor in folded.values():
        tensor.zero_()
    for name, tensor in Weights(**before).tensors().items():
        assert torch.equal(tensor, getattr(trainer.weights, name))


def test_the_moving_threshold_is_folded_too():
    trainer = trained(steps=5)
    held_out = HeldOut(trainer, 0)
    wanted = float(trainer.threshold) / trainer.statistics.c
    assert torch.allclose(held_out.transcoder.threshold, torch.tensor(wanted))


@pytest.mark.parametrize("extreme", ["mask", "bound"])
@pytest.mark.parametrize("parts", [1, 7])
def test_after_calibration_l0_over_ordinary_rows_is_k(extreme, parts):
    trainer = small.trainer(train_changes={"extreme": extreme}, extreme=10)
    small.run(trainer, 0, 60, extreme=2)
    held_out = HeldOut(trainer, 2048)
    x, y = small.rows(2048, seed=50, extreme=40)
    for x_part, y_part in zip(x.chunk(parts), y.chunk(parts), strict=True):
        held_out.calibrate(x_part, y_part)
    held_out.settle()
    ordinary = held_out.transcoder.encode(x[40:]) > 0
    assert float(ordinary.sum(1).double().mean()) == pytest.approx(trainer.spec.k, rel=1e-3)
    held_out.test(*small.rows(2048, seed=51, extreme=40))
    summary = held_out.summary()
    assert summary["ordinary"]["l0"] == pytest.approx(trainer.spec.k, rel=0.05)
    assert summary["calibration_rows"] == 2008 and summary["ordinary"]["rows"] == 2008


def test_threshold_is_0_where_too_few_are_positive():
    trainer = small.trainer()
    trainer.weights.b_enc.fill_(-1e4)
    held_out = HeldOut(trainer, 64)
    held_out.calibrate(*small.rows(64, seed=50))
    held_out.settle()
    assert not held_out.transcoder.threshold.any()
