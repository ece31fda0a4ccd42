"""One comparison of a vector, against Python's."""

import numpy as np
import pytest

from mtc_core.kernels import loops
from mtc_core.kernels.lanes import LANES, lanes_above, lowest_bit


@loops.exact
def bits_of(values_N, first, bound):
    return lanes_above(values_N, first, bound)


@loops.exact
def lowest(bits):
    return lowest_bit(np.uint32(bits))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32])
def test_each_bit_says_what_its_entry_is(dtype):
    draw = np.random.default_rng()
    values = draw.integers(-9, 9, 4 * LANES + 7).astype(dtype)
    for first in range(values.size - LANES + 1):  # wherever it lies
        for bound in (-10, -3, 0, 8):
            wanted = sum(1 << j for j in range(LANES) if values[first + j] > bound)
            assert bits_of(values, first, dtype(bound)) == wanted


def test_what_is_no_number_is_above_nothing():
    values = np.full(LANES, np.nan, np.float32)
    values[3], values[5], values[7] = np.inf, -np.inf, 0.0
    assert bits_of(values, 0, np.float32(-1.0)) == (1 << 3) + (1 << 7)
    assert bits_of(values, 0, np.float32(np.inf)) == 0
    assert bits_of(values, 0, np.float32(np.nan)) == 0


def test_the_lowest_bit():
    for place in range(32):
        assert lowest(1 << place) == place
        assert lowest((1 << place) | (1 << 31)) == place


@pytest.mark.parametrize("size", [0, 1, LANES - 1, LANES, LANES + 1, 3 * LANES + 5, 1000])
def test_what_is_above_is_found_whatever_the_size(size):
    values = np.random.default_rng().standard_normal(size + 3).astype(np.float32)
    found, beside = np.empty(size + 3, np.int64), np.empty(size + 3, np.float32)
    first, last = 2, 2 + size
    bounds = np.float32(0.5), np.float32(2.0)
    n = loops.above(first, last, values, *bounds, found, beside)
    wanted = [j for j in range(first, last) if 0.5 < values[j] <= 2.0]
    assert found[first : first + n].tolist() == wanted
    assert (beside[first : first + n] == values[wanted]).all()
