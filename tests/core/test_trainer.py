"""What a step does to weights, counters and threshold."""

from itertools import pairwise

import pytest
import torch

from mtc_core.config import TrainConfig
from mtc_core.errors import TrainingStopped
from mtc_core.initial import ENCODER_LENGTH, initial_weights
from mtc_core.sites import Site
from tests.core import small
from tests.oracles import naive


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_decoder_rows_are_unit_after_every_step(selection):
    trainer = small.trainer({"selection": selection})
    before = trainer.weights.W_dec.clone()
    for i in range(20):
        small.run(trainer, i, i + 1)
        norms = trainer.weights.W_dec.double().norm(dim=1)
        assert (norms - 1).abs().max() < 1e-6
    assert (trainer.weights.W_dec - before).norm() > 0.01


def test_adam_sees_no_decoder_gradient_along_its_row():
    trainer = small.trainer()
    before = trainer.weights.W_dec.clone()
    small.run(trainer, 0, 1)
    moment = trainer.optimizer.state[trainer.weights.W_dec]["exp_avg"]
    assert moment.norm() > 1e-6
    assert (moment * before).sum(1).abs().max() < 1e-6 * moment.norm()


def test_one_step_is_adam_on_the_gradients_then_unit_rows():
    trainer = small.trainer(dtype=torch.float64)
    before = {k: v.clone() for k, v in trainer.weights.tensors().items()}
    small.run(trainer, 0, 1)
    lr = trainer.spec.lr * trainer.train.lr_factor(0)
    for name, after in trainer.weights.tensors().items():
        gradient = trainer.optimizer.state[after]["exp_avg"] / (1 - 0.9)
        wanted = before[name] - lr * gradient / (gradient.abs() + 1e-8)
        if name == "W_dec":
            wanted = wanted / wanted.norm(dim=1, keepdim=True)
        assert torch.allclose(after, wanted, rtol=1e-9, atol=1e-12), name


def test_learning_rate_warms_up_and_falls_to_zero_over_the_last_fifth():
    long = TrainConfig(tokens=100_000 * 8, batch_tokens=8)
    assert long.warmup == 1000
    short = TrainConfig(tokens=1000 * 8, batch_tokens=8)
    assert short.warmup == 50
    factors = [short.lr_factor(i) for i in range(short.steps)]
    assert factors[0] == pytest.approx(1 / 50) and factors[24] == pytest.approx(0.5)
    assert factors[49:801] == [1.0] * 752
    assert factors[900] == pytest.approx(0.5) and 0 < factors[999] <= 1 / 200
    assert all(a >= b for a, b in pairwise(factors[800:]))
    assert small.spec(lr=None, group_sizes=(2**12, 3 * 2**12)).learning_rate(10**6) == 2e-4


def test_a_step_uses_the_scheduled_rate():
    trainer = small.trainer()
    for i in range(3):
        small.run(trainer, i, i + 1)
        assert trainer.optimizer.param_groups[0]["lr"] == 3e-3 * trainer.train.lr_factor(i)


def test_threshold_starts_at_the_first_cut_and_then_moves_by_a_hundredth():
    trainer = small.trainer()
    expected = None
    for i in range(5):
        small.run(trainer, i, i + 1)
        cut = trainer.selector.batch_topk.cut
        expected = cut if expected is None else 0.99 * expected + 0.01 * cut
        assert float(trainer.threshold) == pytest.approx(expected, rel=1e-12)
    assert trainer.threshold.dtype == torch.float64


def test_threshold_does_not_move_when_too_few_are_positive():
    trainer = small.trainer()
    small.run(trainer, 0, 2)
    before = trainer.threshold.clone()
    trainer.weights.b_enc.fill_(-1e3)
    trainer.weights.b_enc[0] = 1e3
    (report,) = small.run(trainer, 2, 3)
    assert float(report.l0) == 1
    assert torch.equal(trainer.threshold, before)


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_only_a_value_above_zero_counts_as_fired(selection):
    trainer = small.trainer({"selection": selection})
    trainer.weights.b_enc.fill_(-1e3)  # still selected by a top-k that looks at no sign
    trainer.weights.b_enc[[3, 7]] = 1e3
    small.run(trainer, 0, 1)
    silent = trainer.silent_F
    assert silent[[3, 7]].tolist() == [0, 0]
    assert int((silent == small.BATCH).sum()) == trainer.spec.d_sae - 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_masked_rows_take_no_part(selection, dtype):
    changes = {"extreme": "mask", "dtype": dtype}
    trainer = small.trainer({"selection": selection}, changes, extreme=8)
    batch, extreme = trainer.scaler(*small.rows(seed=5, extreme=4))
    assert extreme.nonzero().squeeze(1).tolist() == [0, 1, 2, 3]
    kept = trainer._select(batch, extreme)
    assert int(kept.rows_n.min()) == 4
    assert kept.acts_n.numel() <= trainer.spec.k * (small.BATCH - 4)
    (report,) = small.run(trainer, 0, 1, extreme=4)
    assert float(report.extreme) == 4 / small.BATCH
    assert int(trainer.silent_F.max()) in (0, small.BATCH - 4)


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_bound_rows_use_at_most_four_times_k(selection):
    trainer = small.trainer({"selection": selection}, {"extreme": "bound"}, extreme=8)
    trainer.weights.b_enc.fill_(10.0)  # everything positive, so that rows compete for the budget
    batch, extreme = trainer.scaler(*small.rows(seed=5, extreme=2))
    batch.x_BI[extreme] *= 100
    kept = trainer._select(batch, extreme)
    counts = torch.bincount(kept.rows_n, minlength=small.BATCH)
    assert int(counts[:2].max()) == (4 * trainer.spec.k if selection == "batchtopk" else 5)


@pytest.mark.parametrize("where", ["source", "target"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_a_non_finite_row_stops_training_and_leaves_the_weights(where, value, selection):
    trainer = small.trainer({"selection": selection}, {"extreme": "keep"})
    small.run(trainer, 0, 3)
    before = small.snapshot(trainer)
    x, y = small.rows(seed=3)
    (x if where == "source" else y)[7, 2] = value
    with pytest.raises(TrainingStopped, match="at step 3"):
        trainer.step(x, y)
    after = trainer.state()
    for name in before:
        if name.startswith(("W_", "b_", "adam.", "ridge.", "step", "silent")):
            assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("extreme", [0, 4])
def test_squared_error_is_summed_over_dimensions_and_averaged_over_ordinary_rows(extreme):
    trainer = small.trainer({"selection": "topk"}, extreme=8, dtype=torch.float64)
    small.run(trainer, 0, 5, extreme=extreme)
    weights = {name: tensor.clone() for name, tensor in trainer.weights.tensors().items()}
    batch, extreme_B = trainer.scaler(*small.rows(seed=1005, extreme=extreme))
    (report,) = small.run(trainer, 5, 6, extreme=extreme)
    assert int(extreme_B.sum()) == extreme
    x, y = batch.x_BI[~extreme_B], batch.y_BO[~extreme_B]
    pre = x @ weights["W_enc"].T + weights["b_enc"]
    acts = pre.relu() * naive.select(pre, selection="topk", k=trainer.spec.k, count=len(x))
    outputs = naive.reconstructions(
        acts, weights["W_dec"], weights["b_dec"], trainer.spec.group_sizes
    )
    wanted = torch.stack([(y - out).square().sum(1).mean() for out in outputs[1:]])
    assert torch.allclose(report.l2_P, wanted, rtol=1e-9)
    assert torch.allclose(report.fvu_P * small.D_OUT, report.l2_P, rtol=1e-12)


def test_dead_latents_are_those_silent_for_long_enough():
    trainer = small.trainer({}, {"dead_after_tokens": 128})
    trainer.weights.b_enc[:10] = -1e3
    small.run(trainer, 0, 1)
    assert trainer.dead == 0 and trainer.dead_share == 0
    small.run(trainer, 1, 2)
    silent = int((trainer.silent_F >= 128).sum())
    assert trainer.dead == silent >= 10
    assert trainer.dead_share == silent / trainer.spec.d_sae


def test_two_trainers_interleaved_equal_each_alone():
    def make(seed):
        return small.trainer({"seed": seed}, {"dead_after_tokens": 128})

    together = [make(0), make(1)]
    for i in range(12):
        for trainer in together:
            small.run(trainer, i, i + 1)
    for seed, trainer in enumerate(together):
        alone = make(seed)
        torch.manual_seed(1234)  # the global generator must not matter
        small.run(alone, 0, 12)
        small.same_bits(alone.state(), trainer.state())


def test_initial_weights_depend_on_seed_and_id_alone():
    def draw(spec, d_in=20, d_out=12):
        return initial_weights(spec, d_in, d_out, torch.device("cpu"), torch.float32)

    first = draw(small.spec())
    torch.manual_seed(5)
    torch.rand(3)
    again = draw(small.spec())
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])
    for other in (small.spec(seed=1), small.spec(source=Site.parse("1.resid_mid"))):
        assert not torch.equal(draw(other).W_dec, first.W_dec)
    for rows, length in ((first.W_enc, ENCODER_LENGTH), (first.W_dec, 1)):
        assert (rows.norm(dim=1) - length).abs().max() < 1e-6
    assert not first.b_enc.any() and not first.b_dec.any()
    square = draw(small.spec(), 16, 16)
    assert torch.equal(square.W_enc, ENCODER_LENGTH * square.W_dec)
    elsewhere = draw(small.spec(source=Site.parse("blocks.0.attn.hook_z")), 16, 16)
    assert torch.equal(elsewhere.W_dec.norm(dim=1).round(), torch.ones(48))
    cosine = torch.nn.functional.cosine_similarity(elsewhere.W_enc, elsewhere.W_dec)
    assert cosine.abs().mean() < 0.5  # another space: another purpose, other numbers
