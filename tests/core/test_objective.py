"""Gradients of the functions that `run` calls, against autograd of a naive loop."""

import pytest
import torch

from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.sites import Site
from mtc_core.statistics import PairStatistics
from mtc_core.trainer import TranscoderTrainer
from tests.oracles import naive

UNEVEN = {1: (24,), 4: (3, 7, 2, 12)}


def make_trainer(groups, selection, *, dtype=torch.float64, d_in=6, d_out=9, k=4, **kw):
    spec = TranscoderSpec(
        source=Site.parse("0.resid_mid"),
        target=Site.parse("0.mlp_out"),
        group_sizes=groups,
        k=k,
        selection=selection,
        prefix_weights=kw.pop("prefix_weights", None),
        lr=1e-3,
        aux_weight=kw.pop("aux_weight", 1 / 32),
        k_aux=kw.pop("k_aux", None),
        skip=kw.pop("skip", False),
    )
    train = TrainConfig(tokens=10_000, batch_tokens=64, **({"kernels": "torch"} | kw))
    statistics = PairStatistics(
        mu_I=torch.zeros(d_in, dtype=torch.float64),
        nu_O=torch.zeros(d_out, dtype=torch.float64),
        a=1.0,
        c=1.0,
        variance=float(d_out),
        median_x=d_in**0.5,
        median_y=d_out**0.5,
        extreme_share=0.0,
    )
    trainer = TranscoderTrainer(spec, train, statistics, dtype=dtype)
    generator = torch.Generator().manual_seed(7)
    for tensor in trainer.weights.tensors().values():  # biases start at 0, which hides mistakes
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        tensor.add_(0.1 * noise.to(dtype))
    return trainer


def rows(trainer, n=64, seed=None, extreme=0):
    generator = torch.Generator().manual_seed(torch.seed() >> 1 if seed is None else seed)
    like = trainer.weights.W_enc
    x = torch.randn(n, like.shape[1], generator=generator, dtype=torch.float64)
    y = torch.randn(n, trainer.weights.W_dec.shape[1], generator=generator, dtype=torch.float64)
    y[:extreme] *= 100
    return x.to(like.dtype), y.to(like.dtype)


def gradients_of(trainer, x, y):
    """The gradients that a step hands to the optimizer, before the decoder's projection."""
    found, compute = {}, trainer.kernels.gradients

    def catch(*args):
        gradients = compute(*args)
        found.update({k: v.clone() for k, v in gradients.tensors().items()})
        return gradients

    trainer.kernels.gradients = catch
    report = trainer.step(x, y)
    return found, report


def autograd_of(trainer, x, y, *, terms=None):
    spec, train = trainer.spec, trainer.train
    p = {
        k: v.detach().double().clone().requires_grad_()
        for k, v in trainer.weights.tensors().items()
    }
    batch, extreme_B = trainer.scaler(x.clone(), y.clone())
    cap = {"mask": 0, "bound": 4 * spec.k, "keep": spec.d_sae}[train.extreme]
    x, y, weight = batch.x_BI.double(), batch.y_BO.double(), batch.weight_B.double()
    count, V = int(batch.count), trainer.objective.variance
    parts, _acts, last = naive.losses(
        p, x, y, weight, count,
        group_sizes=spec.group_sizes, k=spec.k, selection=spec.selection, variance=V,
        capped_B=extreme_B, cap=cap,
    )  # fmt: skip
    weights = spec.weights if terms is None else terms
    loss = sum(w * part for w, part in zip(weights, parts, strict=True))
    dead = (trainer.silent_F >= train.dead_after).nonzero().squeeze(1)
    if dead.numel() and spec.aux_weight:
        loss = loss + spec.aux_weight * naive.aux(
            p, x, y, last, weight, count, dead, k_aux=spec.k_aux, variance=V
        )
    loss.backward()
    return {k: v.grad for k, v in p.items()}, loss.detach()


def relative(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm().clamp(min=1e-300))


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize("n_dead", [0, 3, 9])
@pytest.mark.parametrize(("extreme", "rule"), [(0, "mask"), (5, "mask"), (5, "bound"), (5, "keep")])
@pytest.mark.parametrize("bias_weight", [0.0, 0.2])
@pytest.mark.parametrize("skip", [False, True])
def test_gradients_equal_autograd_of_the_naive_loop(
    selection, m, n_dead, extreme, rule, bias_weight, skip
):
    weights = (bias_weight, *[(1 - bias_weight) / m] * m)
    trainer = make_trainer(
        UNEVEN[m], selection, prefix_weights=weights, k_aux=2, extreme=rule, skip=skip
    )
    trainer.silent_F[:n_dead] = 10_000
    x, y = rows(trainer, extreme=extreme)
    wanted, loss = autograd_of(trainer, x, y)
    found, report = gradients_of(trainer, x, y)
    assert float(report.extreme) == extreme / 64
    assert float(report.loss) == pytest.approx(float(loss), rel=1e-12)
    assert ("W_skip" in wanted) == skip
    for name in wanted:
        assert relative(found[name], wanted[name]) < 1e-10, name


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_each_prefix_term_moves_exactly_its_own_latents(selection):
    groups = UNEVEN[4]
    ends = torch.tensor(groups).cumsum(0).tolist()
    for i, end in enumerate(ends, start=1):
        alone = tuple(1.0 if j == i else 0.0 for j in range(5))
        trainer = make_trainer(groups, selection, prefix_weights=None, aux_weight=0.0)
        object.__setattr__(trainer.objective, "prefix_weights", alone)
        x, y = rows(trainer, n=256)
        wanted, _ = autograd_of(trainer, x, y, terms=alone)
        found, _ = gradients_of(trainer, x, y)
        moved = found["W_dec"].abs().sum(1) > 0
        assert relative(found["W_dec"], wanted["W_dec"]) < 1e-10
        assert relative(found["W_enc"], wanted["W_enc"]) < 1e-10
        assert not moved[end:].any(), "a prefix moved a latent outside it"
        fired = trainer.silent_F == 0
        assert fired[:end].any() and torch.equal(moved[:end], fired[:end]), (
            "a prefix left one of its active latents without gradient"
        )


@pytest.mark.parametrize("dropped", [1, 2, 3, 4])
def test_removing_a_prefix_term_changes_the_gradient(dropped):
    trainer = make_trainer(UNEVEN[4], "batchtopk", aux_weight=0.0)
    x, y = rows(trainer)
    kept = tuple(w if i != dropped else 0.0 for i, w in enumerate(trainer.spec.weights))
    whole, _ = autograd_of(trainer, x, y)
    without, _ = autograd_of(trainer, x, y, terms=kept)
    found, _ = gradients_of(trainer, x, y)
    assert relative(found["W_dec"], whole["W_dec"]) < 1e-10
    assert relative(found["W_dec"], without["W_dec"]) > 1e-3


@pytest.mark.parametrize("extreme", ["mask", "bound", "keep"])
def test_extreme_rows_weigh_what_the_rule_says(extreme):
    trainer = make_trainer(UNEVEN[4], "batchtopk", extreme=extreme)
    x, y = rows(trainer, extreme=3)
    batch, is_extreme = trainer.scaler(x.clone(), y.clone())
    limit = 8 * trainer.statistics.median_y
    weight = batch.weight_B[:3]
    if extreme == "mask":
        assert is_extreme[:3].all() and (weight == 0).all() and int(batch.count) == 61
    elif extreme == "bound":
        expected = (limit / y[:3].norm(dim=1)).square()
        assert is_extreme[:3].all() and torch.allclose(weight, expected)
        assert int(batch.count) == 64
    else:
        assert is_extreme[:3].all() and (weight == 1).all() and int(batch.count) == 64


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_low_precision_stays_near_fp64_at_full_size(dtype, limit):
    """B 2048, F 4608: norm-relative, each side with the active set that it selects itself."""
    trainer = make_trainer(
        (576, 576, 1152, 2304), "batchtopk", dtype=torch.float32, d_in=64, d_out=64, k=32
    )
    object.__setattr__(trainer.train, "dtype", dtype)
    x, y = rows(trainer, n=2048, seed=3)
    wanted, _ = autograd_of(trainer, x, y)
    found, _ = gradients_of(trainer, x, y)
    for name in wanted:
        assert relative(found[name], wanted[name]) < limit, name
