"""From training units to model units: fold centres and scales into the weights.

Training maps a(x − μ) to c(y − ν). relu is homogeneous, so folding is exact:

    W_enc ← (a/c) W_enc;   b_enc ← (b_enc − a W_enc μ) / c;   b_dec ← b_dec / c + ν

With a skip connection, W_skip ← (a/c) W_skip, and b_dec loses the folded W_skip μ.

W_dec is unchanged and thresholds are divided by c. Saved decoder rows stay unit; activations are in
raw target units. Done in float64, stored in float32. Unfolding solves the same for the training
units of other statistics, whose transcoder then computes what the folded one does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtc_core.objective import Weights
from mtc_core.statistics import PairStatistics


def fold(weights: Weights, statistics: PairStatistics) -> dict[str, Tensor]:
    """Folded weights in the dtype of the given ones."""
    s = statistics
    W_enc, b_enc = weights.W_enc.double(), weights.b_enc.double()
    dtype = weights.W_enc.dtype
    b_dec = weights.b_dec.double() / s.c + s.nu_O
    skip = {}
    if weights.W_skip is not None:
        W_skip = weights.W_skip.double() * (s.a / s.c)
        b_dec -= W_skip @ s.mu_I
        skip["W_skip"] = W_skip.to(dtype)
    return {
        "W_enc": (W_enc * (s.a / s.c)).to(dtype),
        "b_enc": ((b_enc - s.a * (W_enc @ s.mu_I)) / s.c).to(dtype),
        "W_dec": weights.W_dec.clone(),
        "b_dec": b_dec.to(dtype),
        **skip,
    }


def unfold(saved: Mapping[str, Tensor], statistics: PairStatistics, dtype: torch.dtype) -> Weights:
    """The inverse of `fold`, for any statistics of the same sites."""
    s = statistics
    W_enc = saved["W_enc"].double() * (s.c / s.a)
    b_enc = s.c * saved["b_enc"].double() + s.a * (W_enc @ s.mu_I)
    b_dec, W_skip = saved["b_dec"].double() - s.nu_O, None
    if "W_skip" in saved:
        b_dec += saved["W_skip"].double() @ s.mu_I
        W_skip = (saved["W_skip"].double() * (s.c / s.a)).to(dtype)
    return Weights(
        W_enc=W_enc.to(dtype),
        b_enc=b_enc.to(dtype),
        W_dec=saved["W_dec"].to(dtype, copy=True),
        b_dec=(s.c * b_dec).to(dtype),
        W_skip=W_skip,
    )
