"""The notebook's way: one transcoder from any iterator of rows."""

import gc
import weakref

import pytest
import torch

from mtc_core import fit
from mtc_core.errors import ConfigError, DataError
from mtc_core.fitting import rebatch
from mtc_core.statistics import measure_pair
from tests.core import small

SPEC = small.spec()


def chunks(x, y, sizes):
    start = 0
    for size in sizes:
        yield x[start : start + size], y[start : start + size]
        start += size
    yield x[start:], y[start:]


@pytest.mark.parametrize("sizes", [(), (1, 63, 0, 65, 700, 3), (7,) * 270, (64,) * 30])
def test_the_cut_of_the_stream_does_not_matter(sizes):
    x, y = small.rows(30 * small.BATCH + 11, seed=3)
    train = small.train(tokens=30 * small.BATCH)
    whole = fit([(x, y)], SPEC, train)
    cut = fit(chunks(x, y, sizes), SPEC, train)
    small.same_bits(whole.state_dict(), cut.state_dict())


def test_rebatch_loses_only_a_short_rest():
    x, y = small.rows(150)
    found = list(rebatch(chunks(x, y, (1, 100, 0, 20)), 40))
    assert [len(a) for a, _ in found] == [40, 40, 40]
    assert torch.equal(torch.cat([a for a, _ in found]), x[:120])
    assert torch.equal(torch.cat([b for _, b in found]), y[:120])


def test_no_more_rows_are_drawn_than_needed():
    drawn = []

    def endless():
        while True:
            drawn.append(1)
            yield small.rows(seed=len(drawn))

    steps = []
    fit(endless(), SPEC, small.train(tokens=10 * small.BATCH), on_step=lambda i, r: steps.append(i))
    assert steps == list(range(10)) and len(drawn) == 10


def test_too_few_rows_say_how_many_there_were():
    with pytest.raises(DataError, match="ended after 128 of 640"):
        fit([small.rows(150)], SPEC, small.train(tokens=640))
    with pytest.raises(DataError, match="ended before one batch of 64"):
        fit([small.rows(63)], SPEC, small.train(tokens=640))
    with pytest.raises(DataError, match="ended before one batch"):
        fit([], SPEC, small.train(tokens=640))
    with pytest.raises(ConfigError, match="tokens = 63 is below batch_tokens = 64"):
        fit([small.rows(100)], SPEC, small.train(tokens=63))


@pytest.mark.parametrize(
    ("x", "y"),
    [((64,), (64, 12)), ((64, 20), (64,)), ((64, 20), (63, 12)), ((4, 16, 20), (4, 16, 12))],
)
def test_rows_of_another_shape_are_refused(x, y):
    with pytest.raises(DataError, match="rows must be pairs of"):
        fit([(torch.zeros(x), torch.zeros(y))], SPEC, small.train())


def test_chunks_of_different_widths_are_refused():
    x, y = small.rows(32)
    with pytest.raises(DataError, match="wide"):
        fit([(x, y), (x[:, :19], y)], SPEC, small.train())


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
def test_a_short_run_beats_the_mean_and_the_best_line(selection):
    spec = small.spec(group_sizes=(32, 64), selection=selection, lr=1e-2)
    train = small.train(tokens=600 * 128, batch_tokens=128)
    calibration = small.rows(2048, seed=11)
    tc = fit([small.rows(train.tokens, seed=12)], spec, train, calibration=calibration)
    x, y = small.rows(2048, seed=13)
    result = tc.evaluate(x, y)
    x1 = torch.cat([x, torch.ones(2048, 1)], 1)  # fitted on the test rows: better than any ridge
    line = x1 @ torch.linalg.lstsq(x1, y).solution
    line_fvu = float((y - line).square().sum() / (y - y.mean(0)).square().sum())
    assert result.fvu < 0.5 * line_fvu < 0.5
    assert result.l0 == pytest.approx(spec.k, rel=0.05)
    assert list(result.fvu_by_prefix) == sorted(result.fvu_by_prefix, reverse=True)


@pytest.mark.parametrize("selection", ["batchtopk", "topk"])
@pytest.mark.parametrize("steps", [20, 150])
def test_without_calibration_rows_l0_is_near_k_all_the_same(selection, steps):
    """The average of the batches' own thresholds lags: after 40 steps L0 was 13 for a k of 8."""
    seed = int(torch.randint(2**31, ()))
    spec = small.spec(group_sizes=(32, 64), selection=selection, lr=1e-2)
    train = small.train(tokens=steps * 512, batch_tokens=512)
    tc = fit([small.rows(train.tokens, seed)], spec, train)
    last = small.rows(train.tokens, seed)[0][-512:]
    assert int((tc.encode(last) > 0).sum()) <= 512 * spec.k
    assert tc.evaluate(*small.rows(4096, seed + 1)).l0 == pytest.approx(spec.k, rel=0.15)


def test_statistics_are_of_a_whole_block_even_where_training_is_shorter():
    """As in a run, whose weights would be others."""
    x, y = small.rows(4 * small.BATCH, seed=int(torch.randint(2**31, ())))
    tc = fit([(x, y)], SPEC, small.train(tokens=small.BATCH, block_batches=4))
    assert torch.equal(tc.reference.mu_I, measure_pair(x, y).mu_I)
    fewer = fit([(x[:150], y[:150])], SPEC, small.train(tokens=small.BATCH, block_batches=4))
    assert torch.equal(fewer.reference.mu_I, measure_pair(x[:128], y[:128]).mu_I)


def test_the_model_that_made_the_rows_is_not_kept_alive():
    """Nor its activations: rows that carry gradients are taken without them."""
    layer, inputs = torch.nn.Linear(small.D_IN, small.D_OUT), []

    def rows():
        while True:
            x = small.rows(96, seed=len(inputs))[0].requires_grad_() * 1
            inputs.append(weakref.ref(x))
            yield x, layer(x).relu()

    def alive():
        return sum(one() is not None for one in inputs)

    during = []
    train = small.train(tokens=8 * small.BATCH)
    tc = fit(rows(), SPEC, train, on_step=lambda *_: during.append(alive()))
    gc.collect()
    assert max(during) == 1, "what the iterator itself is holding"
    assert inputs and not alive()
    assert not any(tensor.requires_grad for tensor in tc.reference.tensors().values())


def test_calibration_without_rows_is_refused_before_training():
    """All would be on at a threshold that no row has set."""
    x, y = small.rows(640)
    steps = []
    with pytest.raises(DataError, match="calibration has no rows"):
        fit([(x, y)], SPEC, small.train(tokens=640), calibration=(x[:0], y[:0]),
            on_step=lambda i, r: steps.append(i))  # fmt: skip
    assert not steps
