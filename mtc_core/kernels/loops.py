"""The loops of a CPU step, compiled by numba: each nonzero's rows are read while they are in cache.

Every row, and every latent, is computed by one thread in one order: results do not depend on the
number of threads. Ranges (`first`, `last`) are what one thread takes at a time. All memory is the
caller's. Sums may be taken in the order that suits the CPU's vectors, as in a matrix product.

B rows · M groups · F latents · I, O source and target widths · n nonzeros · N entries
"""

# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mtc_core.kernels.lanes import LANES, lanes_above, lowest_bit


def _compiled(*fastmath: str) -> Any:
    """Compiles a loop at its first call, and keeps the code for other processes where it can."""

    def compiled(loop: Any) -> Any:
        options: Any = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}
        try:
            return njit(cache=True, **options)(loop)
        except RuntimeError:  # no folder here may be written to
            return njit(**options)(loop)

    return compiled


# A sum that is written to memory and may be reordered has other bits where the array that it runs
# over lies just behind it: LLVM decides at run time, by addresses, if vectors are safe. So only
# `dot`, which writes nothing, may reorder, and elsewhere a sum has one product to be fused with.
exact, fused = _compiled(), _compiled("contract")
reordered = _compiled("contract", "reassoc", "nsz")

INFINITE = 0x7F800000  # bits of a float32; above it nothing is a number


@exact
def above(first, last, values_N, bound, most, found_N, found_values_N):
    """Ascending indices of values above `bound` and up to `most`, from found_N[first] on, and
    beside them the values; returns how many."""
    n, vectors = first, (last - first) // LANES
    for i in range(first, first + vectors * LANES, LANES):
        bits = lanes_above(values_N, i, bound)
        while bits != 0:
            j = i + lowest_bit(bits)
            if values_N[j] <= most:
                found_N[n], found_values_N[n] = j, values_N[j]
                n += 1
            bits &= bits - np.uint32(1)
    for j in range(first + vectors * LANES, last):
        if values_N[j] > bound and values_N[j] <= most:
            found_N[n], found_values_N[n] = j, values_N[j]
            n += 1
    return n - first


@exact
def rank(flat_n, values_n, bits_n, budget, d_sae, rows_k, latents_k, acts_k):
    """The `budget` largest, fewer if there are not as many positive ones; equals go to the lowest
    index. bits_n: the values as integers, which have their order where those are positive. Returns
    how many."""
    positive = 0
    for i in range(bits_n.size):
        positive += 0 < bits_n[i] <= INFINITE
    cut, equals = 0, 0  # everything above `cut` is kept, and of those at it the first `equals`
    if positive > budget:
        cut, equals = _cut(bits_n, budget)
    n, row, row_starts = 0, 0, 0
    for i in range(bits_n.size):
        at_cut = bits_n[i] == cut and equals > 0
        if at_cut or cut < bits_n[i] <= INFINITE:
            equals -= at_cut
            while flat_n[i] - row_starts >= d_sae:
                row, row_starts = row + 1, row_starts + d_sae
            rows_k[n], latents_k[n], acts_k[n] = row, flat_n[i] - row_starts, values_n[i]
            n += 1
    return n


@exact
def least(bits_N, wanted):
    """Bits of the `wanted`-th largest, or 0 if there are not as many positive ones."""
    positive = 0
    for i in range(bits_N.size):
        positive += 0 < bits_N[i] <= INFINITE
    return _cut(bits_N, wanted)[0] if positive >= wanted else 0


@exact
def _cut(bits_n, budget):
    """The budget-th largest, and how many equal to it belong to the `budget` largest."""
    count = np.zeros(1 << 11, np.int64)
    prefix, left = 0, budget
    for shift, width in ((21, 10), (10, 11), (0, 10)):  # 31 bits, the highest first
        count[: 1 << width] = 0
        above_shift, mask = shift + width, (1 << width) - 1
        for i in range(bits_n.size):
            if 0 < bits_n[i] <= INFINITE and bits_n[i] >> above_shift == prefix:
                count[(bits_n[i] >> shift) & mask] += 1
        digit = mask
        while count[digit] < left:
            left -= count[digit]
            digit -= 1
        prefix = (prefix << width) | digit
    return prefix, left


@exact
def offsets(ids_n, starts):
    """Where each id's entries would start if they were sorted by id: into starts, one longer than
    there are ids."""
    starts[:] = 0
    for i in range(ids_n.size):
        starts[ids_n[i] + 1] += 1
    for i in range(starts.size - 1):
        starts[i + 1] += starts[i]


@exact
def by_latent(latents_n, rows_n, acts_n, d_act_n, starts, rows_L, acts_L, d_act_L):
    """The nonzeros in latent order, rows ascending within a latent; starts: as of `offsets`."""
    place = starts[:-1].copy()
    for i in range(latents_n.size):
        at = place[latents_n[i]]
        rows_L[at], acts_L[at], d_act_L[at] = rows_n[i], acts_n[i], d_act_n[i]
        place[latents_n[i]] += 1


@fused
def _add(out_D, a, row_D):
    for o in range(out_D.size):
        out_D[o] += a * row_D[o]


@fused
def _plus(out_D, row_D):
    # Where both are rows of one array, a loop over its indices would not be made of vectors.
    for o in range(out_D.size):
        out_D[o] += row_D[o]


@fused
def _add2(out_D, a0, a1, row0_D, row1_D):
    for o in range(out_D.size):
        out_D[o] = (out_D[o] + a0 * row0_D[o]) + a1 * row1_D[o]


@fused
def _add4(out_D, a0, a1, a2, a3, row0_D, row1_D, row2_D, row3_D):
    # Four rows at once: their cache misses overlap.
    for o in range(out_D.size):
        out_D[o] = (((out_D[o] + a0 * row0_D[o]) + a1 * row1_D[o]) + a2 * row2_D[o]) + a3 * row3_D[
            o
        ]


@reordered
def dot(a_D, b_D):
    # From the first entry on: from the second, every vector would lie across lines of the cache.
    total = a_D.dtype.type(0)
    for o in range(a_D.size):
        total += a_D[o] * b_D[o]
    return total


@exact
def scale_rows(first, last, scale, rows_BD, centre_D, out_BD, distance_B):
    """(row − centre) · scale, and ‖row − centre‖."""
    for r in range(first, last):
        for d in range(centre_D.size):
            out_BD[r, d] = rows_BD[r, d] - centre_D[d]
        distance_B[r] = np.sqrt(dot(out_BD[r], out_BD[r]))
        for d in range(centre_D.size):
            out_BD[r, d] *= scale


@fused
def pass_rows(
    first, last, starts, latents_n, acts_n, group_F, W_dec, b_dec, y_BO, scale_BM,
    G_MBO, residual_BO, squares_BM, d_act_n,
):  # fmt: skip
    """Decode, prefix errors ŷ_i − y, their squares, gradients of groups, gradients of activations.
    G_MBO is written of the first group, and of those of which a row has nonzeros: no other is read.

    scale_BM: 2 w_i / (n V) times the row's weight. mtc_core/objective.py has the formulas."""
    n_groups, width = G_MBO.shape[0], G_MBO.shape[2]
    errors_MO, G_O = np.empty((n_groups, width), W_dec.dtype), np.empty(width, W_dec.dtype)
    # Where each group's nonzeros end, and where each prefix's error is: that of the one before it,
    # if its last group has none. Latents ascend, and with them their groups.
    ends_M, at_M = np.empty(n_groups, np.int64), np.empty(n_groups, np.int64)
    for r in range(first, last):
        for o in range(width):
            errors_MO[0, o] = b_dec[o] - y_BO[r, o]
        end = starts[r]
        for m in range(n_groups):
            begin = end
            while end < starts[r + 1] and group_F[latents_n[end]] == m:
                end += 1
            ends_M[m], at_M[m] = end, m
            if m and begin == end:
                at_M[m], squares_BM[r, m] = at_M[m - 1], squares_BM[r, m - 1]
                continue
            if m:
                for o in range(width):
                    errors_MO[m, o] = 0
            _decode(begin, end, latents_n, acts_n, W_dec, errors_MO[m])
            if m:
                _plus(errors_MO[m], errors_MO[at_M[m - 1]])
            squares_BM[r, m] = dot(errors_MO[m], errors_MO[m])
        whole = at_M[n_groups - 1]
        for o in range(width):
            residual_BO[r, o] = -errors_MO[whole, o]
            G_O[o] = 0
        for m in range(n_groups - 1, -1, -1):
            scale, at = scale_BM[r, m], at_M[m]
            for o in range(width):
                G_O[o] = scale * errors_MO[at, o] + G_O[o]
            if at == m:
                for o in range(width):
                    G_MBO[m, r, o] = G_O[o]
            for i in range(ends_M[m - 1] if m else starts[r], ends_M[m]):
                d_act_n[i] = dot(G_O, W_dec[latents_n[i]])


@fused
def _decode(first, last, latents_n, acts_n, W_dec, out_O):
    i = first
    while i + 3 < last:
        _add4(
            out_O, acts_n[i], acts_n[i + 1], acts_n[i + 2], acts_n[i + 3],
            W_dec[latents_n[i]], W_dec[latents_n[i + 1]],
            W_dec[latents_n[i + 2]], W_dec[latents_n[i + 3]],
        )  # fmt: skip
        i += 4
    if i + 1 < last:
        _add2(out_O, acts_n[i], acts_n[i + 1], W_dec[latents_n[i]], W_dec[latents_n[i + 1]])
        i += 2
    if i < last:
        _add(out_O, acts_n[i], W_dec[latents_n[i]])


@fused
def update_latents(
    first, last, starts, rows_L, acts_L, d_act_L, group_F, aux_F, aux_enc_DI, aux_b_D, aux_dec_DO,
    x_1BI, G_MBO, adam, W_enc, m_enc, v_enc, b_enc, m_b, v_b, W_dec, m_dec, v_dec,
):  # fmt: skip
    """Gradients of each latent's weights, and their Adam step, while they are in cache.

    aux_F: a dead latent's row in the aux gradients, else -1. adam: see `_adam`. The part of a
    decoder row's gradient along the row is left out, and rows leave at unit norm."""
    g_enc_I, g_dec_O = np.empty(W_enc.shape[1], W_enc.dtype), np.empty(W_dec.shape[1], W_dec.dtype)
    for f in range(first, last):
        g_enc_I[:] = 0
        g_dec_O[:] = 0
        g_b = np.zeros(1, b_enc.dtype)
        _gather(starts[f], starts[f + 1], rows_L, acts_L, G_MBO, group_F[f], g_dec_O)
        _gather(starts[f], starts[f + 1], rows_L, d_act_L, x_1BI, 0, g_enc_I)
        for i in range(starts[f], starts[f + 1]):
            g_b[0] += d_act_L[i]
        if aux_F[f] >= 0:
            g_b[0] += aux_b_D[aux_F[f]]
            for o in range(g_enc_I.size):
                g_enc_I[o] += aux_enc_DI[aux_F[f], o]
            for o in range(g_dec_O.size):
                g_dec_O[o] += aux_dec_DO[aux_F[f], o]
        _add(g_dec_O, -dot(g_dec_O, W_dec[f]), W_dec[f])
        _adam(adam, g_enc_I, W_enc[f], m_enc[f], v_enc[f])
        _adam(adam, g_b, b_enc[f : f + 1], m_b[f : f + 1], v_b[f : f + 1])
        _adam(adam, g_dec_O, W_dec[f], m_dec[f], v_dec[f])
        norm = np.sqrt(dot(W_dec[f], W_dec[f]))
        for o in range(g_dec_O.size):
            W_dec[f, o] /= norm


@fused
def _gather(first, last, rows_L, values_L, dense_MBD, m, out_D):
    # Both are three-dimensional and whole: a slice's inner stride would be unknown to the compiler.
    i = first
    while i + 3 < last:
        _add4(
            out_D, values_L[i], values_L[i + 1], values_L[i + 2], values_L[i + 3],
            dense_MBD[m, rows_L[i]], dense_MBD[m, rows_L[i + 1]],
            dense_MBD[m, rows_L[i + 2]], dense_MBD[m, rows_L[i + 3]],
        )  # fmt: skip
        i += 4
    while i < last:
        _add(out_D, values_L[i], dense_MBD[m, rows_L[i]])
        i += 1


@exact
def _adam(adam, gradient_D, weight_D, m_D, v_D):
    """adam: 1 − β1, β2, 1 − β2, lr / (1 − β1^t), 1 / √(1 − β2^t), ε, in the weights' dtype."""
    keep_m, keep_v, new_v, rate, rise, eps = adam[0], adam[1], adam[2], adam[3], adam[4], adam[5]
    for o in range(weight_D.size):
        g = gradient_D[o]
        m = m_D[o] + keep_m * (g - m_D[o])
        v = keep_v * v_D[o] + new_v * g * g
        m_D[o], v_D[o] = m, v
        weight_D[o] -= rate * m / (np.sqrt(v) * rise + eps)
