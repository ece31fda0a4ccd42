"""Centres, scales and extreme rows."""

import pytest
import torch

from mtc_core.errors import TrainingStopped
from mtc_core.statistics import PairStatistics, Scaler, measure_pair
from tests.core import small


def scaled(statistics, x, y, mode="mask"):
    scaler = Scaler(statistics, mode, device=torch.device("cpu"), dtype=torch.float64)
    return scaler(x, y)


@pytest.mark.parametrize("extreme", [0, 10])
def test_scaled_ordinary_rows_are_centred_with_the_power_of_their_width(extreme):
    x, y = small.rows(1000, seed=2, extreme=extreme)
    statistics = measure_pair(x, y)
    batch, is_extreme = scaled(statistics, x, y)
    ordinary = ~is_extreme
    assert int(is_extreme.sum()) == extreme
    for side, width in ((batch.x_BI, small.D_IN), (batch.y_BO, small.D_OUT)):
        assert side[ordinary].mean(0).abs().max() < 1e-10
        assert float(side[ordinary].square().sum(1).mean()) == pytest.approx(width, rel=1e-10)
    y_ordinary = y[ordinary].double()
    variance = (y_ordinary - y_ordinary.mean(0)).square().sum(1).mean()
    assert statistics.variance == pytest.approx(float(variance), rel=1e-10)
    assert statistics.extreme_share == pytest.approx(extreme / 1000)


def test_rows_massive_in_the_target_alone_are_found():
    x, y = small.rows(1000, seed=2, extreme=7)
    statistics = measure_pair(x, y)
    by_source = x.double().sub(statistics.mu_I).norm(dim=1) > 8 * statistics.median_x
    assert not by_source.any()
    _, is_extreme = scaled(statistics, x, y)
    assert is_extreme.nonzero().squeeze(1).tolist() == list(range(7))


def test_rows_massive_in_the_source_alone_are_found():
    x, y = small.rows(1000, seed=2)
    x[5] *= 100
    _, is_extreme = scaled(measure_pair(x, y), x, y)
    assert is_extreme.nonzero().squeeze(1).tolist() == [5]


def test_median_is_over_all_rows():
    x, y = small.rows(1001, seed=2, extreme=100)
    statistics = measure_pair(x, y)
    distance = (y.double() - statistics.nu_O).norm(dim=1)
    assert statistics.median_y == pytest.approx(float(distance.sort().values[500]), rel=1e-12)


@pytest.mark.parametrize("mode", ["mask", "bound", "keep"])
def test_weights_of_extreme_rows(mode):
    x, y = small.rows(500, seed=2, extreme=3)
    statistics = measure_pair(x, y)
    batch, _ = scaled(statistics, x, y, mode)
    bound = (8 * statistics.median_y / (y[:3].double() - statistics.nu_O).norm(dim=1)).square()
    wanted = {"mask": torch.zeros(3), "bound": bound, "keep": torch.ones(3)}[mode].double()
    assert torch.allclose(batch.weight_B[:3], wanted, rtol=1e-9)
    assert (batch.weight_B[3:] == 1).all()
    assert int(batch.count) == (497 if mode == "mask" else 500)


def test_raw_rows_are_not_changed():
    x, y = small.rows(100)
    x_before, y_before = x.clone(), y.clone()
    statistics = measure_pair(x, y)
    Scaler(statistics, "mask", device=torch.device("cpu"))(x, y)
    assert torch.equal(x, x_before) and torch.equal(y, y_before)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("broken", ["constant", "nan", "inf"])
def test_a_site_that_cannot_be_scaled_stops_training(side, broken):
    x, y = small.rows(200)
    bad = x if side == "source" else y
    if broken == "constant":
        bad[:] = torch.arange(bad.shape[1]) * 0.1
    else:
        bad[3, 1] = float(broken)
    word = "constant" if broken == "constant" else "non-finite"
    with pytest.raises(TrainingStopped, match=f"{side} site has {word}"):
        measure_pair(x, y)


def test_statistics_survive_a_checkpoint():
    statistics = measure_pair(*small.rows(200))
    again = PairStatistics.from_tensors(statistics.tensors())
    assert torch.equal(again.mu_I, statistics.mu_I) and torch.equal(again.nu_O, statistics.nu_O)
    for name in ("a", "c", "variance", "median_x", "median_y", "extreme_share"):
        assert getattr(again, name) == getattr(statistics, name)
