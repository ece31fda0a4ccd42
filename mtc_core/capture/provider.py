"""Sites of a loaded model, through the provider that serves them: both hand a prepared model to the
same `Capture`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from mtc_core.capture.bridge import tap_hook_points
from mtc_core.capture.choose import resolve_provider
from mtc_core.capture.forward import Capture, Tapped
from mtc_core.capture.hf import tap_modules
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import Site


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
