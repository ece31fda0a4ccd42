"""The notebook's way: one transcoder from any iterator of rows."""

import pytest
import torch

from mtc_core import fit
from mtc_core.errors import ConfigError, DataError
from mtc_core.fitting import rebatch
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
