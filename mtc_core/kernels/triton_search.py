"""Finding the largest of many without asking how many there are: Triton kernels of the selection.

A matrix is cut into blocks of one row's neighbours, numbered in flat order. Each kernel takes what
an earlier one left in device memory, so nothing here waits, and sizes never depend on values.

Sums of a block are taken in a fixed order, counts are integers: the same input gives the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

DIGITS = tl.constexpr(256)  # eight bits of a float at a time
BINS = tl.constexpr(512)  # the upper half is for what does not count


@triton.jit
def _block(values, bias, width, BLOCK: tl.constexpr, BIASED: tl.constexpr):
    """Flat places and values of this program's block; beyond the row's end −inf."""
    row, part = tl.program_id(0), tl.program_id(1)
    column = part * BLOCK + tl.arange(0, BLOCK)
    place = row.to(tl.int64) * width + column
    value = tl.load(values + place, mask=column < width, other=-float("inf"))
    if BIASED:
        value += tl.load(bias + column, mask=column < width, other=0.0)
    return row * tl.num_programs(1) + part, place, value


@triton.jit
def count(values, bias, cut, wanted, above, at, width, BLOCK: tl.constexpr, BIASED: tl.constexpr):
    """In each block, how many values are above the cut, and how many positive ones equal it.
    Nothing is done where `wanted` is 0."""
    if tl.load(wanted) == 0:
        return
    block, _, value = _block(values, bias, width, BLOCK, BIASED)
    bound = tl.load(cut)
    tl.store(above + block, tl.sum((value > bound).to(tl.int32)))
    tl.store(at + block, tl.sum(((value == bound) & (value > 0)).to(tl.int32)))


@triton.jit
def write(
    values, bias, cut, ties, above_before, at_before, places_out, values_out, width, room,
    BLOCK: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Places and values of all above the cut and of the first `ties` that equal it, in flat order.
    above_before, at_before: how many earlier blocks have."""
    block, place, value = _block(values, bias, width, BLOCK, BIASED)
    bound, allowed = tl.load(cut), tl.load(ties)
    equal = ((value == bound) & (value > 0)).to(tl.int32)
    earlier = tl.load(at_before + block)
    within = earlier + tl.cumsum(equal, 0) - equal < allowed
    taken = ((value > bound) | ((equal > 0) & within)).to(tl.int32)
    first = tl.load(above_before + block) + tl.minimum(earlier, allowed)
    slot = first + tl.cumsum(taken, 0) - taken
    fits = (taken > 0) & (slot < room)
    tl.store(places_out + slot, place, mask=fits)
    tl.store(values_out + slot, value, mask=fits)


@triton.jit
def histogram(
    values, bias, state, bins, width,
    SHIFT: tl.constexpr, BLOCK: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Counts of the next eight bits, of positive values whose higher bits are the prefix found so
    far. Bits of positive floats are in the order of their values."""
    if tl.load(state + 2) == 0:
        return
    _, _, value = _block(values, bias, width, BLOCK, BIASED)
    bits = value.to(tl.int32, bitcast=True).to(tl.int64)
    counts = (value > 0) & ((bits >> (SHIFT + 8)) == tl.load(state))
    digit = tl.where(counts, (bits >> SHIFT) & 255, DIGITS).to(tl.int32)
    found = tl.histogram(digit, BINS)
    each = tl.arange(0, BINS)
    tl.atomic_add(bins + each, found, mask=(each < DIGITS) & (found > 0))


@triton.jit
def pick(state, bins):
    """Append the digit of the wanted value to the prefix. state: prefix, how many of the largest
    with that prefix are wanted, whether there is anything left to find, whether there were too few
    positive values."""
    if tl.load(state + 2) == 0:
        return
    digit = tl.arange(0, DIGITS)
    counts = tl.load(bins + digit)
    wanted = tl.load(state + 1)
    with_larger = tl.sum(counts) - tl.cumsum(counts, 0) + counts  # this digit or a larger one
    found = tl.sum((with_larger >= wanted).to(tl.int32)) - 1
    few = found < 0
    larger = tl.sum(tl.where(digit > found, counts, 0))
    prefix = tl.load(state)
    tl.store(state, tl.where(few, 0, (prefix << 8) | found))
    tl.store(state + 1, tl.where(few, 0, wanted - larger))
    tl.store(state + 2, tl.where(few, 0, 1))
    tl.store(state + 3, tl.where(few, 1, 0))
    tl.store(bins + digit, tl.zeros_like(counts))


@triton.jit
def keep_of_rows(
    values, bias, chosen, width, fill,
    K: tl.constexpr, BLOCK: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Of each chosen row leave the K largest positive values, equals by lowest place; the rest of
    it becomes `fill`."""
    row = tl.program_id(0).to(tl.int64)
    if tl.load(chosen + row) == 0:
        return
    cut, taken = 0, 0
    if K > 0:
        for i in range(31):  # the largest bits that K values reach
            trial = cut | (1 << (30 - i))
            reached = 0
            for start in range(0, width, BLOCK):
                value = _of_row(values, bias, row, start, width, BLOCK, BIASED)
                bits = value.to(tl.int32, bitcast=True)
                reached += tl.sum(((value > 0) & (bits >= trial)).to(tl.int32))
            cut = tl.where(reached >= K, trial, cut)
        above = 0
        for start in range(0, width, BLOCK):
            value = _of_row(values, bias, row, start, width, BLOCK, BIASED)
            bits = value.to(tl.int32, bitcast=True)
            above += tl.sum(((value > 0) & (bits > cut)).to(tl.int32))
        ties = K - above
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        if K > 0:
            value = _of_row(values, bias, row, start, width, BLOCK, BIASED)
            bits = value.to(tl.int32, bitcast=True)
            equal = ((value > 0) & (bits == cut)).to(tl.int32)
            within = taken + tl.cumsum(equal, 0) - equal < ties
            keep = (value > 0) & ((bits > cut) | ((equal > 0) & within))
            taken += tl.sum(equal)
            tl.store(values + row * width + column, fill, mask=(column < width) & ~keep)
        else:
            tl.store(values + row * width + column, fill, mask=column < width)


@triton.jit
def _of_row(values, bias, row, start, width, BLOCK: tl.constexpr, BIASED: tl.constexpr):
    column = start + tl.arange(0, BLOCK)
    value = tl.load(values + row * width + column, mask=column < width, other=-float("inf"))
    if BIASED:
        value += tl.load(bias + column, mask=column < width, other=0.0)
    return value
