"""A step on a GPU: Triton kernels by row from kept activations to the gradients of each group, by
latent from there to new weights. torch_kernels.py is their slow twin.

Latents that are on in many rows are cut into segments, whose sums are added in order: no latent
keeps one processor busy while the others wait, and nothing depends on who comes first.

B rows · M groups · F latents · S segments · I, O source and target widths · n kept activations
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pass_rows(
    starts, latents, acts, W_dec, b_dec, y, scale, G, residual, squares, d_out,
    M: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of one row: ‖ŷ_i − y‖² of each prefix, y − ŷ_m, and the gradient of each group's part.
    starts: of each (row, group) among the kept activations. scale [B, M]: of each prefix's error.
    """
    row = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, BLOCK)
    inside = o < d_out
    error = tl.load(b_dec + o, mask=inside, other=0.0)
    error -= tl.load(y + row * d_out + o, mask=inside, other=0.0)
    for j in range(M):
        first, last = tl.load(starts + row * M + j), tl.load(starts + row * M + j + 1)
        for start in range(first, last, TILE):
            n = start + tl.arange(0, TILE)
            on = n < last
            act = tl.load(acts + n, mask=on, other=0.0)
            latent = tl.load(latents + n, mask=on, other=0)
            where = latent[:, None] * d_out + o[None, :]
            w = tl.load(W_dec + where, mask=on[:, None] & inside[None, :], other=0.0)
            error += tl.sum(act[:, None] * w.to(tl.float32), 0)
        tl.store(squares + row * M + j, tl.sum(error * error))
        tl.store(G + (row * M + j) * d_out + o, error.to(G.dtype.element_ty), mask=inside)
    tl.store(residual + row * d_out + o, -error, mask=inside)
    tl.debug_barrier()  # what is read again may have been written by another thread
    gradient = tl.zeros_like(error)
    for i in range(M):
        j = M - 1 - i
        at = G + (row * M + j) * d_out + o
        factor = tl.load(scale + row * M + j)
        gradient += factor * tl.load(at, mask=inside, other=0.0).to(tl.float32)
        tl.store(at, gradient.to(G.dtype.element_ty), mask=inside)


@triton.jit
def sum_segment(
    segment_latent, segment_first, segment_last, rows, acts, group_of, W_dec, G, x,
    sums_enc, sums_b, sums_dec, d_in, d_out, M,
    TILE: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Gradients of a latent's weights over some of the rows that it is on in: each row's G and x
    are read once."""
    segment = tl.program_id(0).to(tl.int64)
    first, last = tl.load(segment_first + segment), tl.load(segment_last + segment)
    if first >= last:
        return
    latent = tl.load(segment_latent + segment)
    group = tl.load(group_of + latent)
    i, o = tl.arange(0, BLOCK_I), tl.arange(0, BLOCK_O)
    in_i, in_o = i < d_in, o < d_out
    w = tl.load(W_dec + latent * d_out + o, mask=in_o, other=0.0).to(tl.float32)
    of_enc = tl.zeros([BLOCK_I], tl.float32)
    of_dec = tl.zeros([BLOCK_O], tl.float32)
    of_b = tl.zeros([TILE], tl.float32)
    for start in range(first, last, TILE):
        n = start + tl.arange(0, TILE)
        on = n < last
        row = tl.load(rows + n, mask=on, other=0)
        act = tl.load(acts + n, mask=on, other=0.0)
        at = (row * M + group)[:, None] * d_out + o[None, :]
        g = tl.load(G + at, mask=on[:, None] & in_o[None, :], other=0.0).to(tl.float32)
        of_act = tl.sum(g * w[None, :], 1)
        at = row[:, None] * d_in + i[None, :]
        source = tl.load(x + at, mask=on[:, None] & in_i[None, :], other=0.0).to(tl.float32)
        of_dec += tl.sum(act[:, None] * g, 0)
        of_enc += tl.sum(of_act[:, None] * source, 0)
        of_b += of_act
    tl.store(sums_enc + segment * d_in + i, of_enc, mask=in_i)
    tl.store(sums_dec + segment * d_out + o, of_dec, mask=in_o)
    tl.store(sums_b + segment, tl.sum(of_b))


@triton.jit
def _adam(gradient, at, first_at, second_at, mask, rate, rise, beta1_less, beta2, beta2_less, eps):
    """The new parameter, not stored yet; both moments are."""
    first = tl.load(first_at, mask=mask, other=0.0)
    second = tl.load(second_at, mask=mask, other=0.0)
    first += beta1_less * (gradient - first)
    second = beta2 * second + beta2_less * gradient * gradient
    tl.store(first_at, first, mask=mask)
    tl.store(second_at, second, mask=mask)
    old = tl.load(at, mask=mask, other=0.0)
    return old - rate * first / (tl.sqrt(second) * rise + eps)


@triton.jit
def update_latent(
    segments, sums_enc, sums_b, sums_dec, aux_place, aux_enc, aux_b, aux_dec,
    W_enc, b_enc, W_dec, enc_first, enc_second, b_first, b_second, dec_first, dec_second,
    half_enc, half_dec, good, rate, rise, beta1_less, beta2, beta2_less, eps, d_in, d_out,
    AUX: tl.constexpr, HALF: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """Adam on one latent's weights; its decoder row leaves at unit norm. segments: where those of
    each latent begin. HALF: the new weights are also written in bfloat16."""
    if tl.load(good) == 0:
        return
    latent = tl.program_id(0).to(tl.int64)
    i, o = tl.arange(0, BLOCK_I), tl.arange(0, BLOCK_O)
    in_i, in_o = i < d_in, o < d_out
    of_enc = tl.zeros([BLOCK_I], tl.float32)
    of_dec = tl.zeros([BLOCK_O], tl.float32)
    of_b = 0.0
    for segment in range(tl.load(segments + latent), tl.load(segments + latent + 1)):
        of_enc += tl.load(sums_enc + segment * d_in + i, mask=in_i, other=0.0)
        of_dec += tl.load(sums_dec + segment * d_out + o, mask=in_o, other=0.0)
        of_b += tl.load(sums_b + segment)
    if AUX:
        place = tl.load(aux_place + latent)
        if place >= 0:
            of_enc += tl.load(aux_enc + place * d_in + i, mask=in_i, other=0.0)
            of_dec += tl.load(aux_dec + place * d_out + o, mask=in_o, other=0.0)
            of_b += tl.load(aux_b + place)

    at, moment = latent * d_in + i, latent * d_in + i
    new = _adam(
        of_enc, W_enc + at, enc_first + moment, enc_second + moment, in_i,
        rate, rise, beta1_less, beta2, beta2_less, eps,
    )  # fmt: skip
    tl.store(W_enc + at, new, mask=in_i)
    if HALF:
        tl.store(half_enc + at, new.to(tl.bfloat16), mask=in_i)

    new_b = _adam(
        of_b, b_enc + latent, b_first + latent, b_second + latent, latent >= 0,
        rate, rise, beta1_less, beta2, beta2_less, eps,
    )  # fmt: skip
    tl.store(b_enc + latent, new_b)

    at = latent * d_out + o
    old = tl.load(W_dec + at, mask=in_o, other=0.0)
    # A unit row cannot use the part of its gradient along itself; Adam's moments should not.
    of_dec -= tl.sum(of_dec * old) * old
    new = _adam(
        of_dec, W_dec + at, dec_first + at, dec_second + at, in_o,
        rate, rise, beta1_less, beta2, beta2_less, eps,
    )  # fmt: skip
    new /= tl.sqrt(tl.sum(new * new))
    tl.store(W_dec + at, new, mask=in_o)
    if HALF:
        tl.store(half_dec + at, new.to(tl.bfloat16), mask=in_o)


@triton.jit
def update_vector(
    gradient, parameter, first, second, good,
    rate, rise, beta1_less, beta2, beta2_less, eps, size, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adam on a parameter that belongs to no latent, entry by entry."""
    if tl.load(good) == 0:
        return
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    new = _adam(
        tl.load(gradient + at, mask=inside, other=0.0),
        parameter + at, first + at, second + at, inside,
        rate, rise, beta1_less, beta2, beta2_less, eps,
    )  # fmt: skip
    tl.store(parameter + at, new, mask=inside)
