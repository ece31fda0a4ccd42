"""Which provider serves which sites: `hf` hooks the modules of known families, `bridge` any
TransformerLens hook name. Both hand a prepared model to the same `Capture`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from mtc_core.capture.bridge import tap_hook_points
from mtc_core.capture.forward import Capture, Tapped
from mtc_core.capture.hf import tap_modules
from mtc_core.errors import ModelError, SiteError
from mtc_core.model.model_shape import KNOWN_FAMILIES, ModelShape
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import Site

Provider = Literal["hf", "bridge"]


def make_capture(
    loaded: LoadedModel,
    sites: Iterable[Site],
    provider: Literal["auto", "hf", "bridge"] = "auto",
) -> Capture:
    """Hook the sites, each distinct tensor once. Raises SiteError for sites this model lacks.

    The `bridge` provider works on a copy of the module tree that shares the weights, so `loaded`
    stays as it is.
    """
    ordered = _in_order(sites)
    return Capture(tap(loaded, ordered, provider), ordered, loaded.shape)


def tap(
    loaded: LoadedModel,
    sites: Iterable[Site],
    provider: Literal["auto", "hf", "bridge"] = "auto",
) -> Tapped:
    """The model with each distinct tensor ready to be hooked, in the order of a forward pass.
    Raises SiteError for sites this model lacks."""
    ordered = _in_order(sites)
    if resolve_provider(loaded.shape, ordered, provider) == "hf":
        return tap_modules(loaded, ordered)
    return tap_hook_points(loaded, ordered)


def _in_order(sites: Iterable[Site]) -> list[Site]:
    distinct = {site.tensor: Site.parse(site.tensor) for site in sites}
    assert distinct, "a capture needs a site"
    return sorted(distinct.values(), key=lambda site: (site.depth, site.hook))


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
