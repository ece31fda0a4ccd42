"""From training units to model units: fold centres and scales into the weights.

Training maps a(x − μ) to c(y − ν). relu is homogeneous, so folding is exact:

    W_enc ← (a/c) W_enc;   b_enc ← (b_enc − a W_enc μ) / c;   b_dec ← b_dec / c + ν

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
    return {
        "W_enc": (W_enc * (s.a / s.c)).to(dtype),
        "b_enc": ((b_enc - s.a * (W_enc @ s.mu_I)) / s.c).to(dtype),
        "W_dec": weights.W_dec.clone(),
        "b_dec": (weights.b_dec.double() / s.c + s.nu_O).to(dtype),
    }


def unfold(saved: Mapping[str, Tensor], statistics: PairStatistics, dtype: torch.dtype) -> Weights:
    """The inverse of `fold`, for any statistics of the same sites."""
    s = statistics
    W_enc = saved["W_enc"].double() * (s.c / s.a)
    b_enc = s.c * saved["b_enc"].double() + s.a * (W_enc @ s.mu_I)
    return Weights(
        W_enc=W_enc.to(dtype),
        b_enc=b_enc.to(dtype),
        W_dec=saved["W_dec"].to(dtype, copy=True),
        b_dec=(s.c * (saved["b_dec"].double() - s.nu_O)).to(dtype),
    )
