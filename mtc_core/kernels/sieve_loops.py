"""Loops of the sieve, compiled by numba. mtc_core/kernels/loops.py says what holds for all of them.

B rows · F latents · D width
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import numpy as np

# numba keeps compiled code by the file of a loop: after a change of these, this file has to change.
# Last: `dot` adds from the first entry on.
from mtc_core.kernels.loops import LANES, any_above, dot, exact

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
def above(first, last, bound, slack_B, rounding, product_BF, x_BI, W_FI, bias_F, found_N, values_N):
    """Ascending flat indices of entries of x Wᵀ + bias above a bound, and those, from
    found_N[first * F] on; returns how many.

    product_BF: x Wᵀ as bits of bfloat16, off by at most slack_B of its row and `rounding` of
    itself. Only what may be above the bound by that is computed: nothing of a row whose slack is
    −inf, and all of one whose slack is inf."""
    width = bias_F.size
    bits, maybe = np.empty(width, np.int32), np.empty(width, np.int64)
    highest = bits.view(np.float32)
    start = first * width
    n = start
    for r in range(first, last):
        least = bound - slack_B[r]
        if least == np.inf:
            continue
        for f in range(width):
            bits[f] = np.int32(product_BF[r, f]) << 16
        for f in range(width):
            highest[f] += rounding * abs(highest[f]) + bias_F[f]
        found, f = 0, 0
        while f < width:
            end = min(f + LANES, width)
            if least == -np.inf or any_above(highest[f:end], least):
                for j in range(f, end):
                    if least == -np.inf or highest[j] > least:
                        maybe[found] = j
                        found += 1
            f = end
        for i in range(found):
            value = dot(x_BI[r], W_FI[maybe[i]]) + bias_F[maybe[i]]
            if value > bound:
                found_N[n], values_N[n] = r * width + maybe[i], value
                n += 1
    return n - start
