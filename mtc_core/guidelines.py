"""Sizes to start from, for users of the single-script guide to Matryoshka transcoders.

    d_sae        16 × d_in                      group_sizes   1, 2, 4 and 9 × d_in
    k            d_sae / 200                    lr            3e-4
    batch_tokens 1024 to 4096                   aux_weight    1/32

Loads without torch.
"""

from __future__ import annotations

import math
from fractions import Fraction

from mtc_core.errors import ConfigError

GROUP_SHARES = (1, 2, 4, 9)  # of 16 parts
PARTS = sum(GROUP_SHARES)
LATENTS_PER_K = 200


def suggest_group_sizes(d_in: int, expansion: int | float = 16) -> tuple[int, ...]:
    """Sizes (not ends) of four nested groups, `expansion` × d_in latents in all.

    768 gives (768, 1536, 3072, 6912). The first three are 1/16, 2/16 and 4/16 of all latents,
    rounded down; the last has the rest. Raises ConfigError unless d_in × expansion is a whole
    number, at least 16: below, four groups cannot each be larger than the one before.
    """
    if isinstance(d_in, bool) or not isinstance(d_in, int) or d_in < 1:
        raise ConfigError(f"d_in must be a whole number of at least 1, found {d_in!r}")
    known = isinstance(expansion, int | float) and not isinstance(expansion, bool)
    if not known or not math.isfinite(expansion) or expansion <= 0:
        raise ConfigError(f"expansion must be a number above 0, found {expansion!r}")
    latents = d_in * Fraction(str(expansion))  # of the digits as written: 1000 × 0.57 is 570
    if latents.denominator != 1:
        raise ConfigError(
            f"{expansion} x {d_in} is {float(latents):g}, no whole number of latents; give another "
            "expansion"
        )
    d_sae = int(latents)
    if d_sae < PARTS:
        raise ConfigError(
            f"{expansion} x {d_in} is {d_sae}, too few latents for four growing groups; give an "
            f"expansion with at least {PARTS}"
        )
    first = [d_sae * share // PARTS for share in GROUP_SHARES[:-1]]
    return (*first, d_sae - sum(first))


def suggest_k(d_sae: int) -> int:
    """Latents kept per row: one in 200, at least 1. Raises ConfigError unless d_sae is positive."""
    if isinstance(d_sae, bool) or not isinstance(d_sae, int) or d_sae < 1:
        raise ConfigError(f"d_sae must be a whole number of at least 1, found {d_sae!r}")
    return max(1, d_sae // LATENTS_PER_K)
