"""Which provider serves which sites: `hf` hooks the modules of known families, `bridge` any
TransformerLens hook name. Loads without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from mtc_core.errors import ModelError, SiteError
from mtc_core.model.model_shape import EAGER_FAMILIES, KNOWN_FAMILIES, ModelShape
from mtc_core.sites import Site

Provider = Literal["hf", "bridge"]


def resolve_provider(
    shape: ModelShape,
    sites: Iterable[Site],
    provider: Literal["auto", "hf", "bridge"] = "auto",
) -> Provider:
    """`auto` is `hf` where it can serve every site, else `bridge`. Record the answer: the two
    agree to rounding, not to the bit. Raises SiteError or ModelError."""
    sites = list(sites)
    for site in sites:
        shape.check(site)
    raw = [site for site in sites if site.kind is None]
    known = shape.family in KNOWN_FAMILIES
    if provider == "hf" and not known:
        raise ModelError(
            f"the hf provider does not know {shape.family} models, only "
            f"{', '.join(sorted(KNOWN_FAMILIES))}; use the bridge provider"
        )
    if provider == "hf" and raw:
        raise SiteError(f"{raw[0]} needs the bridge provider; hf serves LAYER.SITE names only")
    if provider == "auto":
        return "hf" if known and not raw else "bridge"
    return provider


def is_eager(shape: ModelShape, provider: Provider) -> bool:
    """Whether attention holds the scores of every position against every other at once: the bridge
    has them hooked (see bridge.py)."""
    return provider == "bridge" or shape.family in EAGER_FAMILIES
