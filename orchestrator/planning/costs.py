"""What a suite costs, by the cost model of maths.md §10: FLOPs per token, bytes in memory, on disk.

T positions of a context · R rows of a block · B rows of a step · F latents (d_sae) · m groups
P parameters of a transcoder = F (d_in + 1 + d_out) + d_out, and d_in d_out of a skip connection
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.model.model_shape import ModelShape
from mtc_core.sites import Site
from mtc_core.tokens.data_config import DataConfig

FLOAT32_BYTES = 4
ROWS_PER_DIMENSION = 128  # of mtc_core.ridge, which needs torch
FLOAT64_BYTES = 8
STORED_TOKEN_BYTES = 5  # an int32 id and a byte of row mask
RUNTIME_BYTES = 400 * 10**6  # Python with torch and transformers imported: 332 MB measured
KEPT_BYTES = 100 * 10**6  # freed tensors that lie too scattered to be taken again (kept_memory.py)
LOOPS_BYTES = 150 * 10**6  # numba, its compiler and what it has compiled: 116 to 200 MB measured
SLOT_BYTES = 100  # of a kept activation in Triton's kernels: candidates, places, and their order
SEGMENT = 64  # of mtc_core.kernels.segments, which needs torch
RAY_BYTES = 600 * 10**6  # its own processes, with the dashboard
DRIVER_BYTES = RUNTIME_BYTES + RAY_BYTES  # what runs beside cells that have their own processes
# Of a score of eager attention, in any dtype: what goes into the softmax and what comes out, which
# is computed in float32, and a mask: 2.1 times four measured, of Gemma-2 and through the bridge.
SCORES_BYTES = 8.4
ADAM_BYTES = 50  # moved for each parameter by a step of fused Adam, and to keep rows at unit norm
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Of a step, for each token: FLOPs of matrix products, FLOPs on gathered rows, and bytes of
    passes over pre-activations, prefixes and parameters (these once a step, by Adam)."""

    dense_flops: int
    sparse_flops: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscoderCost:
    """One transcoder. `state_bytes`: weights, both Adam moments, a fourth copy (the gradient in a
    step, the folded weights at the end), and ridge totals; `checkpoint_bytes`: all of these but the
    fourth copy; `final_bytes`: weights, thresholds and the ridge map."""

    params: int
    state_bytes: int
    checkpoint_bytes: int
    final_bytes: int
    step_bytes: int
    work: Work

    @property
    def flops_per_token(self) -> int:
        return self.work.dense_flops + self.work.sparse_flops


def transcoder_cost(
    spec: TranscoderSpec, d_in: int, d_out: int, batch_tokens: int
) -> TranscoderCost:
    """Memory, disk and FLOPs of a transcoder trained with the sparse kernels."""
    latents, groups = spec.d_sae, len(spec.group_sizes)
    skip = d_in * d_out if spec.skip else 0
    params = latents * (d_in + 1 + d_out) + d_out + skip
    ridge = FLOAT64_BYTES * (d_in + 1) * (d_in + 1 + d_out)
    silent = FLOAT64_BYTES * latents  # the firing counters, int64
    # Of the encoder the weight gradient; of the decoder the reconstruction, and the gradients of
    # its weights and its activations; and the prefixes.
    sparse = 2 * spec.k * d_in + 3 * 2 * spec.k * d_out + 3 * groups * d_out
    passes = FLOAT32_BYTES * (2 * latents + 10 * groups * d_out + 4 * (d_in + d_out))
    # A step holds: pre-activations and, at worst, as many of dead latents; each prefix's error and
    # its gradient; raw and scaled rows of both sites.
    step_row = 2 * latents + 2 * groups * d_out + 2 * (d_in + d_out)
    return TranscoderCost(
        params=params,
        state_bytes=4 * FLOAT32_BYTES * params + ridge + silent,
        checkpoint_bytes=3 * FLOAT32_BYTES * params + ridge + silent,
        final_bytes=FLOAT32_BYTES * (params + latents + d_in * d_out),
        step_bytes=FLOAT32_BYTES * batch_tokens * step_row,
        work=Work(
            dense_flops=2 * d_in * latents + 2 * 2 * skip,  # of the skip, also its gradient
            sparse_flops=sparse,
            bytes=passes + ADAM_BYTES * params // batch_tokens,
        ),
    )


def triton_bytes(k: int, d_in: int, d_out: int, params: int, batch_tokens: int) -> int:
    """What a step of Triton's kernels holds beside the others': sums of segments beyond one for
    each latent, slots of kept activations, and weights in bfloat16."""
    kept = k * batch_tokens
    sums = FLOAT32_BYTES * (kept // SEGMENT) * (d_in + d_out)
    return sums + SLOT_BYTES * kept + DTYPE_BYTES["bfloat16"] * params


def blocks_run(sites: Iterable[Site], n_layers: int) -> int:
    """Transformer blocks that a forward which stops after the last of these sites runs."""
    return max(_blocks_to(site, n_layers) for site in sites)


def _blocks_to(site: Site, n_layers: int) -> int:
    if site.layer is None:
        return n_layers if site.depth > (n_layers, 0) else 0
    return site.layer + (site.kind != "resid_pre")


def forward_flops(shape: ModelShape, blocks: int, context_tokens: int) -> int:
    """FLOPs per token: the matrices, and attention scores against a full context."""
    attention = 4 * context_tokens * shape.n_heads * shape.d_head
    return blocks * (2 * shape.block_params + attention)


def model_bytes(shape: ModelShape, dtype: str) -> int:
    """All layers: loading them is what the weights' files allow."""
    return DTYPE_BYTES[dtype] * shape.params


def forward_bytes(
    shape: ModelShape, dtype: str, contexts: int, context_tokens: int, eager: bool
) -> int:
    """What one block of the model holds at once: the stream, attention's four, the MLP's three;
    where attention is eager (is_eager), its scores as well."""
    row = 2 * shape.d_model + 4 * shape.n_heads * shape.d_head + _mlp_row(shape)
    scores = SCORES_BYTES * contexts * shape.n_heads * context_tokens**2 if eager else 0
    return DTYPE_BYTES[dtype] * contexts * context_tokens * row + int(scores)


def _mlp_row(shape: ModelShape) -> int:
    """Of one position. Experts have four of their units, and their inputs and outputs gathered, for
    each that the token goes through: 0.8 to 1.1 of that measured, of Mixtral and OLMoE."""
    if not shape.experts:
        return 3 * shape.d_mlp
    gathered = 3 * shape.experts.per_token * shape.d_model
    dense = 3 * shape.d_mlp if shape.experts.dense_blocks else 0
    return max(dense, 4 * shape.experts.active_units + gathered)


def block_bytes(widths: Iterable[int], train: TrainConfig) -> int:
    """The captured rows of one block: every distinct tensor once, float32."""
    return FLOAT32_BYTES * train.block_rows * sum(widths)


def stored_tokens(data: DataConfig, rows: int) -> int:
    """Positions on disk for so many trained rows; the first position of a context is no row."""
    contexts = -(-rows // (data.context_tokens - 1))
    return contexts * data.context_tokens + data.holdout_tokens
