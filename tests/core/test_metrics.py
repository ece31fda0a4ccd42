"""Totals that merge, ratios against hand-written formulas, and training left alone."""

import itertools

import numpy as np
import pytest
import torch

from mtc_core.held_out import HeldOut
from mtc_core.metrics import Population
from mtc_core.ridge import PARTS, PENALTIES
from tests.core import small

GROUPS = (3, 4, 5)
F, O = sum(GROUPS), 6  # noqa: E741


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(F, O, generator=generator, dtype=torch.float64)
    return W_dec, torch.randn(O, generator=generator, dtype=torch.float64)


def data(n=200, seed=1, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(n, O, generator=generator, dtype=torch.float64) * torch.arange(1, O + 1) + 3
    acts = torch.rand(n, F, generator=generator, dtype=torch.float64)
    return y, acts * (torch.rand(n, F, generator=generator) < share)


def population():
    return Population(F, GROUPS, O, torch.device("cpu"))


def test_a_mean_predictor_scores_1_and_a_perfect_one_0():
    y, acts = data()
    W_dec, _ = weights()
    mean = population()
    mean.add(y, y.mean(0), W_dec, torch.zeros_like(acts))
    assert all(abs(fvu - 1) < 1e-12 for fvu in mean.fvu_by_prefix)
    assert abs(mean.summary()["fvu_bias_only"] - 1) < 1e-12
    perfect = population()
    b_dec = weights()[1]
    perfect.add(acts @ W_dec + b_dec, b_dec, W_dec, acts)
    assert abs(perfect.fvu_by_prefix[-1]) < 1e-12
    assert perfect.fvu_by_prefix[0] > 0.1


def test_every_figure_equals_its_formula_in_numpy():
    y, acts = data()
    W_dec, b_dec = weights()
    total = population()
    line = y * 0.5
    total.add(y, b_dec, W_dec, acts, line)
    got = total.summary()
    y_, a_, W_, b_ = (t.numpy() for t in (y, acts, W_dec, b_dec))
    scatter = ((y_ - y_.mean(0)) ** 2).sum()
    fvus = []
    for i, end in enumerate(np.cumsum(GROUPS)):
        out = a_[:, :end] @ W_[:end] + b_
        fvus.append(((y_ - out) ** 2).sum() / scatter)
        norms = np.linalg.norm(out, axis=1) * np.linalg.norm(y_, axis=1)
        cosine = ((out * y_).sum(1) / norms).mean()
        assert got["fvu_by_prefix"][i] == pytest.approx(fvus[-1], rel=1e-12)
        assert got["cosine_by_prefix"][i] == pytest.approx(cosine, rel=1e-12)
    assert got["fvu"] == got["fvu_by_prefix"][-1]
    assert got["min_prefix_loss"] == pytest.approx(min(fvus))
    assert got["max_prefix_loss"] == pytest.approx(max(fvus))
    assert got["fvu_bias_only"] == pytest.approx(((y_ - b_) ** 2).sum() / scatter, rel=1e-12)
    assert got["fvu_ridge"] == pytest.approx((y_**2).sum() / 4 / scatter, rel=1e-12)
    assert got["l0"] == (a_ > 0).sum() / 200 and got["rows"] == 200
    by_group = [part.sum() for part in np.split(a_ > 0, np.cumsum(GROUPS)[:-1], axis=1)]
    assert got["nonzeros_by_group"] == pytest.approx(np.array(by_group) / (a_ > 0).sum())


def test_the_density_histogram_counts_latents_by_decade():
    y, acts = data(1000, share=0.0)
    for latent, rows in enumerate([1, 10, 11, 100, 101, 1000]):
        acts[:rows, latent] = 1.0
    W_dec, b_dec = weights()
    total = population()
    total.add(y, b_dec, W_dec, acts)
    histogram = total.summary()["density_histogram"]
    wanted = {"<=0.001": 1, "<=0.01": 1, "<=0.1": 2, "<=1": 2, "never": F - 6}
    assert {k: v for k, v in histogram.items() if v} == wanted
    assert total.summary()["never_fired_share"] == pytest.approx((F - 6) / F)


@pytest.mark.parametrize("sizes", [(200,), (1, 199), (0, 50, 150), (66, 67, 67), (1,) * 200])
def test_figures_do_not_depend_on_the_split_or_on_the_order_of_merging(sizes):
    y, acts = data()
    W_dec, b_dec = weights()
    whole = population()
    whole.add(y, b_dec, W_dec, acts, y * 0.5)
    parts = []
    for y_part, acts_part in zip(y.split(list(sizes)), acts.split(list(sizes)), strict=True):
        parts.append(population())
        parts[-1].add(y_part, b_dec, W_dec, acts_part, y_part * 0.5)
    for order in itertools.islice(itertools.permutations(parts), 6):
        merged = population()
        for part in order:
            merged.merge(part)
        assert_close(merged.summary(), whole.summary())


def assert_close(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert a[key] == pytest.approx(b[key], rel=1e-11), key


def test_no_rows_a_constant_target_or_infinities_are_named_as_problems():
    W_dec, b_dec = (tensor.double() for tensor in weights())
    empty = population()
    empty.add(torch.zeros(0, O), b_dec, W_dec, torch.zeros(0, F).double())
    assert empty.rows == 0 and "there is none" in empty.problem
    constant = population()
    constant.add(torch.ones(5, O), b_dec, W_dec, torch.zeros(5, F).double())
    assert "constant over 5" in constant.problem
    infinite = population()
    infinite.add(torch.full((5, O), torch.inf), b_dec, W_dec, torch.zeros(5, F).double())
    assert "not finite" in infinite.problem
    good = population()
    good.add(torch.randn(5, O), b_dec, W_dec, torch.zeros(5, F).double())
    assert good.problem is None


def held_out_run(trainer, extreme=0):
    held_out = HeldOut(trainer, 512)
    held_out.calibrate(*small.rows(512, seed=50, extreme=extreme))
    held_out.settle()
    x, y = small.rows(512, seed=51, extreme=extreme)
    for x_part, y_part in zip(x.chunk(3), y.chunk(3), strict=True):
        held_out.test(x_part, y_part)
    return held_out


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_evaluation_never_changes_training(selection):
    def train(evaluate):
        trainer = small.trainer({"selection": selection}, extreme=8)
        for i in range(20):
            if evaluate and i % 5 == 0:
                before = small.snapshot(trainer)
                held_out_run(trainer, extreme=4)
                small.same_bits(before, trainer.state())
            small.run(trainer, i, i + 1, extreme=2)
        return trainer.state()

    small.same_bits(train(True), train(False))


def test_extreme_shares_and_both_populations():
    trainer = small.trainer(extreme=8)
    small.run(trainer, 0, 20, extreme=2)
    summary = held_out_run(trainer, extreme=16).summary()
    _, y = small.rows(512, seed=51, extreme=16)
    y = y.double()
    variance = [(part - part.mean(0)).square().sum() for part in (y[16:], y)]
    assert summary["extreme_row_share"] == 16 / 512
    wanted = float(1 - variance[0] / variance[1])
    assert summary["extreme_variance_share"] == pytest.approx(wanted, rel=1e-9)
    assert wanted > 0.9
    assert summary["ordinary"]["rows"] == 496 and summary["all"]["rows"] == 512
    transcoder = held_out_run(trainer, extreme=16).transcoder
    x, y = small.rows(512, seed=51, extreme=16)
    for key, rows in (("ordinary", slice(16, None)), ("all", slice(None))):
        fvu = transcoder.evaluate(x[rows], y[rows]).fvu
        assert summary[key]["fvu"] == pytest.approx(fvu, rel=1e-9)


def test_nothing_extreme_means_shares_of_zero():
    trainer = small.trainer()
    small.run(trainer, 0, 5)
    summary = held_out_run(trainer).summary()
    assert summary["extreme_row_share"] == 0 and summary["extreme_variance_share"] == 0
    assert summary["ordinary"] == summary["all"]


def direct_ridge(x, y, penalty):
    """Least squares with rows that pull each coefficient, but not the intercept, to zero."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    pull = (penalty * x.square().sum() / small.D_IN).sqrt() * torch.eye(small.D_IN).double()
    left = torch.cat([x - x_mean, pull])
    right = torch.cat([y - y_mean, torch.zeros(small.D_IN, small.D_OUT).double()])
    W = torch.linalg.lstsq(left, right).solution
    return W, y_mean - x_mean @ W


def test_the_ridge_baseline_equals_a_direct_solve_on_the_rows_trained_on():
    trainer = small.trainer(extreme=8)
    steps = 30
    small.run(trainer, 0, steps, extreme=2)
    s = trainer.statistics
    parts = [small.rows(seed=1000 + i, extreme=2) for i in range(steps)]
    used = slice(2, small.BATCH // PARTS)  # the first two are extreme
    x, y = (torch.cat([part[used] for part in side]).double() for side in zip(*parts, strict=True))
    calibration, test = small.rows(512, seed=50), small.rows(512, seed=51)
    found = []
    for penalty in PENALTIES:
        W, b = direct_ridge(s.a * (x - s.mu_I), s.c * (y - s.nu_O), penalty)
        map_IO = trainer.ridge.solve(penalty)
        assert (map_IO[:-1] - W).norm() < 1e-5 * W.norm()
        assert (map_IO[-1] - b).norm() < 1e-5
        errors = [
            y_raw.double() - (s.nu_O + (s.a * (x_raw.double() - s.mu_I) @ W + b) / s.c)
            for x_raw, y_raw in (calibration, test)
        ]
        found.append([float(error.square().sum()) for error in errors])
    y_test = test[1].double()
    wanted = min(found)[1] / float((y_test - y_test.mean(0)).square().sum())
    summary = held_out_run(trainer).summary()
    assert summary["ordinary"]["fvu_ridge"] == pytest.approx(wanted, rel=1e-5)
    assert 0 < wanted < 1


def test_a_trainer_without_a_step_can_be_measured():
    summary = held_out_run(small.trainer()).summary()
    assert summary["ordinary"]["fvu_ridge"] == pytest.approx(1, abs=0.02)
