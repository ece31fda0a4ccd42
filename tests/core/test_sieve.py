"""What a sieve lets through, held against exact pre-activations, on random inputs drawn anew."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mtc_core.errors import TrainingStopped
from mtc_core.kernels import loops, sieve, threads
from mtc_core.kernels.sieve import FULL_STEPS, SieveMemory, sieved
from mtc_core.kernels.step_kernels import step_kernels
from mtc_core.kernels.torch_kernels import TorchKernels
from mtc_core.objective import Weights
from mtc_core.selection import BatchTopK, Searching
from mtc_core.trainer import TranscoderTrainer
from mtc_core.workspace import Workspace
from tests.core import small
from tests.core.steps import fresh_seed

SHAPES = [(64, 20, 640), (7, 33, 129), (128, 576, 1024), (1, 1, 64), (300, 4, 65)]


def learner_of(W_FI, b_F):
    weights = Weights(W_enc=W_FI, b_enc=b_F, W_dec=W_FI[:, :1], b_dec=b_F[:1], W_skip=None)
    return SimpleNamespace(weights=weights, workspace=Workspace())


def drawn(shape, seed):
    B, I, F = shape  # noqa: E741
    draw = torch.Generator().manual_seed(seed)
    x_BI = torch.randn(B, I, generator=draw) * torch.randn(B, 1, generator=draw).exp()
    W_FI = torch.randn(F, I, generator=draw) * torch.rand(F, 1, generator=draw)
    return x_BI, W_FI, torch.randn(F, generator=draw)


def assert_all_above(found, x_BI, W_FI, b_F, bound, rows_B):
    """Those that are above it, of the rows that count, but for what is at it as near as float32
    can tell; ascending, with their values."""
    exact_BF = (x_BI.double() @ W_FI.double().T + b_F).float()
    size_BF = x_BI.abs() @ W_FI.abs().T + b_F.abs()
    blurred_BF = 1e-6 * x_BI.shape[1] ** 0.5 * size_BF
    flat_n, values_n = found
    assert (flat_n.diff() > 0).all()
    is_found_BF = torch.zeros_like(exact_BF, dtype=torch.bool)
    is_found_BF.view(-1)[flat_n] = True
    assert not is_found_BF[~rows_B].any()
    surely_BF = (exact_BF > bound + blurred_BF) & rows_B[:, None]
    hardly_BF = exact_BF > bound - blurred_BF
    assert (is_found_BF | ~surely_BF).all() and (hardly_BF | ~is_found_BF).all()
    assert (values_n > bound).all()
    apart_n = (values_n - exact_BF.view(-1)[flat_n]).abs()
    assert (apart_n <= blurred_BF.view(-1)[flat_n]).all()


@pytest.mark.parametrize("full_steps", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_is_above_a_bound_is_found(shape, full_steps):
    x_BI, W_FI, b_F = drawn(shape, fresh_seed())
    left_out_B = torch.arange(len(x_BI)) % 5 == 3
    pre = sieved(learner_of(W_FI, b_F), x_BI, SieveMemory(full_steps=full_steps))
    assert pre.pre_BF.dtype == (torch.float32 if full_steps else torch.bfloat16)
    everything_BF = x_BI @ W_FI.T + b_F
    for share in (0.5, 0.9, 0.99, 1.0):
        bound = float(everything_BF.flatten().quantile(share))
        found = pre.sieve.above(bound, left_out_B)
        assert_all_above(found, x_BI, W_FI, b_F, bound, ~left_out_B)
    found = pre.sieve.above(0.0, None)
    assert_all_above(found, x_BI, W_FI, b_F, 0.0, torch.ones(len(x_BI), dtype=torch.bool))


@pytest.mark.parametrize("up", [True, False])
def test_a_sieve_holds_where_everything_is_rounded_the_same_way(up):
    """What rounding can do at worst: the product is off by nearly 2^-7 of itself."""
    odd = 1 + 2**-8 + (1 if up else -1) * 2**-16
    x_BI, W_FI, b_F = torch.full((8, 256), odd), torch.full((64, 256), odd), torch.zeros(64)
    exact = 256 * odd**2
    sieve_ = sieved(learner_of(W_FI, b_F), x_BI, SieveMemory()).sieve
    off = (x_BI.bfloat16().float() @ W_FI.bfloat16().float().T)[0, 0] / exact - 1
    assert 0.0075 < off * (1 if up else -1) < 2**-7
    assert sieve_.above(exact * (1 - 1e-5), None)[0].numel() == 8 * 64
    assert sieve_.above(exact * (1 + 1e-5), None)[0].numel() == 0


def test_rows_are_rounded_as_torch_does():
    draw = torch.Generator().manual_seed(fresh_seed())
    rows = torch.randn(50, 37, generator=draw) * torch.randn(50, 37, generator=draw).mul(8).exp()
    rows[:4, 0] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf])
    rows[4] = 1 + torch.arange(37) * 2**-8  # ties
    half, norm, lost = sieve._halved(rows)
    assert torch.equal(half, rows.bfloat16())
    calm = [0, 1, *range(4, 50)]
    wanted = rows.bfloat16().double()[calm]
    assert torch.allclose(norm[calm].double(), wanted.norm(dim=1), rtol=1e-6)
    assert torch.allclose(
        lost[calm].double(), (rows[calm].double() - wanted).norm(dim=1), rtol=1e-6
    )
    assert not lost[2:4].isfinite().any()


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_not_sieved(odd):
    x_BI, W_FI, b_F = drawn((64, 20, 640), fresh_seed())
    for spoilt in (x_BI, W_FI):
        sound = spoilt.clone()
        spoilt.view(-1)[7] = odd
        assert sieved(learner_of(W_FI, b_F), x_BI, SieveMemory()) is None
        spoilt.copy_(sound)
    b_F[7] = torch.nan
    flat_n, values_n = sieved(learner_of(W_FI, b_F), x_BI, SieveMemory()).sieve.above(1.0, None)
    assert not values_n.isnan().any() and not (flat_n % 640 == 7).any()


@pytest.mark.parametrize("full_steps", [0, 1])
def test_a_row_that_overflows_in_bfloat16_alone_is_computed(full_steps):
    x_BI, W_FI, b_F = drawn((64, 20, 640), fresh_seed())
    x_BI[5, 3] = 3.4e38
    W_FI[:, 3] = torch.where(W_FI[:, 3] < 0, -0.5, 0.5)
    W_FI[::7, 3] = 0  # inf times 0 is no number
    memory = SieveMemory(full_steps=full_steps)
    flat_n, _ = sieved(learner_of(W_FI, b_F), x_BI, memory).sieve.above(1.0, None)
    exact_F = x_BI[5].double() @ W_FI.double().T + b_F
    found_F = torch.zeros(640, dtype=torch.bool)
    found_F[flat_n[flat_n // 640 == 5] % 640] = True
    assert found_F[exact_F > 1.001].all() and not found_F[exact_F < 0.999].any()
    assert found_F[::7].any() and found_F.sum() > 200


@pytest.mark.parametrize("full_steps", [0, 1])
@pytest.mark.parametrize("length, size", [(1e-7, 0.2), (1e17, 1e-24), (1e-20, 1e3), (3.0, 1e-3)])
def test_rows_and_weights_of_any_size(length, size, full_steps):
    """Beside a bias of 1 all that counts may be lost by rounding; squares may be too small."""
    x_BI, W_FI, b_F = drawn((64, 30, 640), fresh_seed())
    x_BI, W_FI = length * x_BI, size * W_FI
    b_F = torch.ones(640) if length == 1e-7 else torch.zeros(640)
    everything_BF = x_BI @ W_FI.T + b_F
    bound = max(1e-30, float(everything_BF.flatten().quantile(0.99)))
    for bound_ in (bound, 1.0 if length == 1e-7 else bound / 3):
        memory = SieveMemory(full_steps=full_steps)
        flat_n, _ = sieved(learner_of(W_FI, b_F), x_BI, memory).sieve.above(bound_, None)
        rows_n, latents_n = np.nonzero(plainly(x_BI, W_FI, b_F) > np.float32(bound_))
        assert np.array_equal(flat_n.numpy(), rows_n * 640 + latents_n)


def plainly(x_BI, W_FI, b_F):
    """Each by the loop that a sieve computes candidates with."""
    x, W, b = x_BI.numpy(), W_FI.numpy(), b_F.numpy()
    return np.array([[loops.dot(row, w) + bias for w, bias in zip(W, b, strict=True)] for row in x])


def test_one_long_latent_lets_nothing_through_but_its_own():
    draw = torch.Generator().manual_seed(fresh_seed())
    x_BI, W_FI = torch.randn(128, 64, generator=draw), torch.randn(1024, 64, generator=draw)
    W_FI[7] *= 100
    bound = float((x_BI @ W_FI.T).flatten().quantile(0.99))
    memory = SieveMemory()
    found = sieved(learner_of(W_FI, torch.zeros(1024)), x_BI, memory).sieve.above(bound, None)
    assert 1000 < found[0].numel() < 1600
    assert memory.full_steps == 0, "less than a twentieth was computed"


def test_where_too_much_is_let_through_the_next_products_are_in_float32():
    """With the same bits."""
    x_BI, W_FI, _ = drawn((64, 256, 640), fresh_seed())
    W_FI /= 10
    x_BI[:, 0], W_FI[:, 0] = 100.3, 20.03  # most of a row or latent is what all have in common
    learner, memory = learner_of(W_FI, torch.full((640,), -2009.0)), SieveMemory()
    everything_BF = x_BI @ W_FI.T - 2009
    bound = float(everything_BF.flatten().quantile(0.995))
    wanted = sieved(learner, x_BI, memory).sieve.above(bound, None)
    for left in range(FULL_STEPS, 0, -1):
        assert memory.full_steps == left
        pre = sieved(learner, x_BI, memory)
        assert pre.pre_BF.dtype == torch.float32
        found = pre.sieve.above(bound, None)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert sieved(learner, x_BI, memory).pre_BF.dtype == torch.bfloat16


def test_bits_depend_neither_on_the_product_nor_on_the_number_of_threads(monkeypatch):
    x_BI, W_FI, b_F = drawn((64, 33, 640), fresh_seed())

    def found(full_steps):
        memory = SieveMemory(full_steps=full_steps)
        return sieved(learner_of(W_FI, b_F), x_BI, memory).sieve.above(0.5, None)

    wanted = found(0)
    for count in (1, 2, 3, 7):
        monkeypatch.setattr(threads.torch, "get_num_threads", lambda count=count: count)
        for full_steps in (0, 1):
            again = found(full_steps)
            assert all(torch.equal(a, b) for a, b in zip(again, wanted, strict=True)), count


def test_a_selection_through_a_sieve_is_that_of_all_or_none():
    x_BI, W_FI, b_F = drawn((128, 40, 1024), fresh_seed())
    exact = torch.addmm(b_F, x_BI, W_FI.T)
    budget, through, plain = 128 * 8, BatchTopK(), BatchTopK()
    assert through.from_above(lambda bound: pytest.fail("no cut yet"), budget, 1024, None) is None
    through.cut = plain.cut = float(exact.flatten().topk(budget).values.min())
    pre = sieved(learner_of(W_FI, b_F), x_BI, SieveMemory())

    def above(bound):
        return pre.sieve.above(bound, None)

    kept = through.from_above(above, budget, 1024, Searching())
    wanted = plain(exact, budget)
    # Of two at the cut, either may be the larger one by another order of summing.
    common = np.intersect1d(
        kept.rows_n * 1024 + kept.latents_n, wanted.rows_n * 1024 + wanted.latents_n
    )
    assert len(common) >= budget - 2 and kept.acts_n.numel() == budget
    assert through.cut == pytest.approx(plain.cut, rel=1e-5)
    through.cut = 100 * plain.cut
    assert through.from_above(above, budget, 1024, Searching()) is None, "too few are above"


@contextmanager
def counted(monkeypatch, name):
    """A method of sieves: its calls."""
    calls, method = [], getattr(sieve.Sieve, name)
    monkeypatch.setattr(sieve.Sieve, name, lambda *args: calls.append(args) or method(*args))
    yield calls
    monkeypatch.setattr(sieve.Sieve, name, method)


def trained(monkeypatch, has_bfloat16, changes, train_changes, steps=60):
    """A trainer after so many steps, and how often it asked a sieve."""
    monkeypatch.setattr(sieve, "multiplies_bfloat16", lambda: has_bfloat16)
    trainer = small.trainer({"group_sizes": (64, 192), "k": 3, **changes}, train_changes)
    with counted(monkeypatch, "above") as asked:
        small.run(trainer, 0, steps, extreme=2)
    return trainer, len(asked)


@pytest.mark.parametrize("extreme", ["mask", "keep"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_through_a_sieve_are_those_without(monkeypatch, dtype, extreme):
    """In bfloat16, too: there it is the plain way in float32 that it agrees with."""
    through, asked = trained(monkeypatch, True, {}, {"dtype": dtype, "extreme": extreme})
    plain, never = trained(monkeypatch, False, {}, {"extreme": extreme})
    assert asked >= 40 and never == 0
    for name, tensor in plain.weights.tensors().items():
        apart = (through.weights.tensors()[name] - tensor).norm() / tensor.norm()
        assert apart < 1e-5, name
    assert float(through.threshold) == pytest.approx(float(plain.threshold), rel=1e-3)


def test_steps_through_a_sieve_go_on_to_the_same_bits(monkeypatch):
    whole, asked = trained(monkeypatch, True, {}, {}, steps=20)
    assert asked > 10
    for cut in (1.0, 5.0):  # then too few are above it, and all are computed
        whole.selector.batch_topk.cut *= cut
        state, first = small.snapshot(whole), whole.step_index
        with counted(monkeypatch, "exact") as computed:
            small.run(whole, first, first + 20)
        assert len(computed) == (cut > 1)
        resumed = TranscoderTrainer.from_state(whole.spec, whole.train, state)
        small.run(resumed, first, first + 20)
        small.same_bits(resumed.state(), whole.state())


def test_a_step_whose_rows_are_no_numbers_changes_nothing(monkeypatch):
    trainer, asked = trained(monkeypatch, True, {}, {}, steps=20)
    assert asked > 10
    before = small.snapshot(trainer)
    x, y = small.rows(seed=1)
    for spoilt in (x, y):
        sound = spoilt.clone()
        spoilt[3, 1] = torch.nan
        with pytest.raises(TrainingStopped):
            trainer.step(x, y)
        spoilt.copy_(sound)
    after = trainer.weights.tensors()
    small.same_bits({name: before[name] for name in after}, after)


@pytest.mark.parametrize(
    "changes, train_changes",
    [
        ({"selection": "topk"}, {}),
        ({}, {"extreme": "bound"}),
        ({"k": 5}, {}),
        ({}, {"kernels": "torch"}),
    ],
)
def test_what_ranks_rows_or_keeps_many_asks_no_sieve(monkeypatch, changes, train_changes):
    assert trained(monkeypatch, True, changes, train_changes, steps=5)[1] == 0


def test_who_takes_few():
    assert small.spec(group_sizes=(64, 192), k=4).takes_few("mask")
    assert not small.spec(group_sizes=(64, 191), k=4).takes_few("mask")
    kernels = step_kernels("torch", torch.device("cpu"), torch.float32, sparse=True)
    assert isinstance(kernels, TorchKernels)
