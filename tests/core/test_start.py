"""Training that starts from a saved transcoder computes at first what that one does."""

import pytest
import torch

from mtc_core import fit
from mtc_core.errors import CheckpointError
from mtc_core.folding import fold, unfold
from mtc_core.statistics import measure_pair
from mtc_core.trainer import TranscoderTrainer
from tests.core import small


def saved(dtype=torch.float32, steps=60):
    trainer = small.trainer(dtype=dtype)
    small.run(trainer, 0, steps)
    trainer.weights.b_enc += 0.1  # biases that matter
    return fold(trainer.weights, trainer.statistics)


def other_statistics():
    """Of other rows than those it was trained on: other centres, other scales."""
    x, y = small.rows(512, seed=7)
    return measure_pair(3 * x - 5, 0.1 * y + 4)


def test_unfolding_is_the_inverse_of_folding_under_any_statistics():
    weights, statistics = saved(torch.float64), other_statistics()
    assert not 0.5 < statistics.a / statistics.c < 2, "equal scales would hide a mistake"
    again = fold(unfold(weights, statistics, torch.float64), statistics)
    for name, tensor in weights.items():
        assert (again[name] - tensor).norm() <= 1e-12 * tensor.norm(), name


def test_the_unfolded_transcoder_computes_the_same_in_training_units():
    weights, s = saved(torch.float64), other_statistics()
    w = unfold(weights, s, torch.float64)
    x = small.rows(200, seed=8)[0].double()
    acts = (x @ weights["W_enc"].T + weights["b_enc"]).relu()
    scaled = ((s.a * (x - s.mu_I)) @ w.W_enc.T + w.b_enc).relu()
    assert torch.allclose(scaled / s.c, acts, rtol=1e-10, atol=1e-12)
    assert torch.allclose((scaled @ w.W_dec + w.b_dec) / s.c + s.nu_O,
                          acts @ weights["W_dec"] + weights["b_dec"], rtol=1e-10)  # fmt: skip


def test_a_trainer_that_starts_from_trained_weights_starts_low_and_leaves_them_alone():
    weights = saved(steps=200)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    statistics = measure_pair(*small.rows(512, seed=1))
    random = TranscoderTrainer(small.spec(), small.train(), statistics)
    started = TranscoderTrainer(small.spec(), small.train(), statistics, start=weights)
    first, trained = (
        float(trainer.step(*small.rows(seed=5)).fvu_P[-1]) for trainer in (random, started)
    )
    assert trained < 0.5 * first
    small.run(started, 0, 3)
    assert all(torch.equal(before[name], weights[name]) for name in before)


def test_weights_of_another_size_are_refused():
    with pytest.raises(CheckpointError, match=r"W_enc of the weights to start from is \[48, 20\]"):
        TranscoderTrainer(
            small.spec(group_sizes=(8, 16, 32)),
            small.train(),
            measure_pair(*small.rows(512, seed=1)),
            start=saved(steps=1),
        )


def test_fit_goes_on_from_a_transcoder():
    train = small.train(tokens=100 * small.BATCH)

    def rows(first):
        return (small.rows(seed=first + i) for i in range(200))

    losses: list[float] = []
    once = fit(rows(0), small.spec(), train)
    again = fit(rows(500), small.spec(), train, start=once,
                on_step=lambda _, report: losses.append(float(report.fvu_P[-1])))  # fmt: skip
    x, y = small.rows(512, seed=3)
    assert losses[0] < 1.2 * once.evaluate(x, y).fvu
    assert again.evaluate(x, y).fvu < once.evaluate(x, y).fvu
