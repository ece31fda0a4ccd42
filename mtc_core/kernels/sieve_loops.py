"""Loops of the sieve, compiled by numba. mtc_core/kernels/loops.py says what holds for all of them.

B rows · F latents · D width
"""

# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated"

from __future__ import annotations

import numpy as np

# numba keeps compiled code by the file of a loop: after a change of these, this file has to change.
# Last: `dot` adds from the first entry on.
from mtc_core.kernels.lanes import LANES, lanes_above, lowest_bit
from mtc_core.kernels.loops import dot, exact

SMALLEST = np.float32(1.2e-38)  # of a square that has not lost its digits


@exact
def halve(first, last, bits_BD, rows_BD, half_BD, norm_B, lost_B):
    """Rows rounded to bfloat16, to nearest and ties to even, as the upper halves of their bits;
    their norms, and the norms of what the rounding took. bits_BD: rows_BD as integers."""
    rounded_bits = np.empty(rows_BD.shape[1], np.int32)
    rounded, lost = rounded_bits.view(np.float32), np.empty(rows_BD.shape[1], np.float32)
    for r in range(first, last):
        for d in range(rounded_bits.size):
            upper = (bits_BD[r, d] + 0x7FFF + ((bits_BD[r, d] >> 16) & 1)) >> 16
            half_BD[r, d] = upper
            rounded_bits[d] = upper << 16
        for d in range(rounded_bits.size):
            lost[d] = rows_BD[r, d] - rounded[d]
        norm_B[r] = np.sqrt(max(dot(rounded, rounded), SMALLEST))
        lost_B[r] = np.sqrt(max(dot(lost, lost), SMALLEST))


@exact
def above(
    first, last, bound, least, rounding, bits_BF, places, lost_B, most_B, norm_F, lost_F,
    left_out_B, x_BI, W_FI, bias_F, found_N, values_N,
):  # fmt: skip
    """Ascending flat indices of entries of x Wᵀ + bias above a bound, and those, from
    found_N[first * F] on; returns how many, and how many were computed for it.

    bits_BF: x Wᵀ as integers, which times `places` are the bits of a float32; off by at most
    lost_B norm_F + most_B lost_F and `rounding` of itself. Only what may be above `least` by that
    is computed: all of a row without bounds, and nothing of one that is left out."""
    width = bias_F.size
    bits, maybe = np.empty(width, np.int32), np.empty(width, np.int64)
    highest = bits.view(np.float32)
    n, computed = first * width, 0
    for r in range(first, last):
        if left_out_B[r]:
            continue
        for f in range(width):
            bits[f] = bits_BF[r, f] * places  # a shift by a variable would be made of 64 bits
        _raise(highest, rounding, bias_F, lost_B[r], norm_F, most_B[r], lost_F)
        found = _may_be_above(highest, least, most_B[r] == np.inf, maybe)
        n = _compute(r, maybe[:found], bound, x_BI[r], W_FI, bias_F, found_N, values_N, n)
        computed += found
    return n - first * width, computed


@exact
def _raise(highest_F, rounding, bias_F, lost, norm_F, most, lost_F):
    """From the products of a row to the most that its entries may be."""
    for f in range(highest_F.size):
        slack = lost * norm_F[f] + most * lost_F[f]
        highest_F[f] += rounding * abs(highest_F[f]) + bias_F[f] + slack


@exact
def _may_be_above(highest_F, least, unbounded, maybe_F):
    """Which of a row may be, into maybe_F; returns how many."""
    found, vectors = 0, 0 if unbounded else highest_F.size // LANES
    for i in range(vectors):
        bits = lanes_above(highest_F, i * LANES, least)
        while bits != 0:
            maybe_F[found] = i * LANES + lowest_bit(bits)
            found += 1
            bits &= bits - np.uint32(1)
    for f in range(vectors * LANES, highest_F.size):
        if unbounded or highest_F[f] > least:
            maybe_F[found] = f
            found += 1
    return found


@exact
def _compute(r, maybe_n, bound, x_I, W_FI, bias_F, found_N, values_N, n):
    """Of a row's entries those that are above the bound, from found_N[n] on; returns their end."""
    for i in range(maybe_n.size):
        f = maybe_n[i]
        value = dot(x_I, W_FI[f]) + bias_F[f]
        if value > bound:
            found_N[n], values_N[n] = r * bias_F.size + f, value
            n += 1
    return n
