"""Weights before the first step: random ones, or those of a transcoder that was saved before.

F latents · I, O source and target widths
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtc_core.config import TranscoderSpec
from mtc_core.errors import CheckpointError
from mtc_core.folding import unfold
from mtc_core.objective import Weights
from mtc_core.seeds import seed_of
from mtc_core.statistics import PairStatistics

# Encoder rows start shorter than decoder rows: at unit length the first reconstructions are mostly
# noise (FVU 1.8 to 4.2) that training must unlearn first (benchmarks/LOG.md, 2026-11-23).
ENCODER_LENGTH = 0.2


def initial_weights(
    spec: TranscoderSpec, d_in: int, d_out: int, device: torch.device, dtype: torch.dtype
) -> Weights:
    """Random unit decoder rows; encoder rows point the same way where both sites are
    residual-shaped, and are ENCODER_LENGTH long. W_skip starts at 0."""
    W_dec = _unit_rows(spec, "W_dec", d_out)
    same_space = d_in == d_out and spec.source.kind is not None and spec.target.kind is not None
    W_enc = W_dec if same_space else _unit_rows(spec, "W_enc", d_in)
    return Weights(
        W_enc=(W_enc * ENCODER_LENGTH).to(device, dtype),
        b_enc=torch.zeros(spec.d_sae, device=device, dtype=dtype),
        W_dec=W_dec.to(device, dtype),
        b_dec=torch.zeros(d_out, device=device, dtype=dtype),
        W_skip=torch.zeros(d_out, d_in, device=device, dtype=dtype) if spec.skip else None,
    )


def _unit_rows(spec: TranscoderSpec, purpose: str, width: int) -> Tensor:
    # Drawn on the CPU: a GPU's generator gives other bits.
    generator = torch.Generator().manual_seed(seed_of(spec.seed, spec.id, purpose))
    rows_FD = torch.randn(spec.d_sae, width, generator=generator)
    return rows_FD / torch.linalg.vector_norm(rows_FD, dim=1, keepdim=True)


def saved_weights(
    saved: Mapping[str, Tensor],
    spec: TranscoderSpec,
    statistics: PairStatistics,
    dtype: torch.dtype,
) -> Weights:
    """Folded weights in the units of a training with these statistics, on their device.

    Raises CheckpointError if they are of other sizes than the spec and the sites."""
    d_in, d_out = statistics.mu_I.numel(), statistics.nu_O.numel()
    wanted = {
        "W_enc": (spec.d_sae, d_in),
        "b_enc": (spec.d_sae,),
        "W_dec": (spec.d_sae, d_out),
        "b_dec": (d_out,),
        **({"W_skip": (d_out, d_in)} if spec.skip else {}),
    }
    if ("W_skip" in saved) != spec.skip:
        has = "a" if "W_skip" in saved else "no"
        raise CheckpointError(
            f"the weights to start from have {has} W_skip, and {spec.id} has skip: "
            f"{str(spec.skip).lower()}; both must be alike"
        )
    for name, shape in wanted.items():
        if tuple(saved[name].shape) != shape:
            raise CheckpointError(
                f"{name} of the weights to start from is {list(saved[name].shape)}, and "
                f"{list(shape)} is needed for {spec.id}"
            )
    device = statistics.mu_I.device
    return unfold({name: saved[name].to(device) for name in wanted}, statistics, dtype)
