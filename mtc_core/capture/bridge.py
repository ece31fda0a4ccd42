"""Any TransformerLens hook name, through TransformerLens's bridge to a transformers model.

C contexts · T positions of a context

What the bridge does to a model (4.3): it replaces modules in place by wrappers with hook points,
switches attention to `eager` so that scores can be hooked, and splits joint QKV weights (GPT-2 by
views, GPT-NeoX by copies). So it gets a module tree of its own, whose parameters are those of the
loaded model. Weights stay raw: compatibility mode, which folds and centres them, is never enabled.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from mtc_core.capture.forward import Handle, Keep, Tap, Tapped
from mtc_core.capture.stream import on_stream
from mtc_core.errors import ModelError, SiteError
from mtc_core.model.model_source import LoadedModel
from mtc_core.model.quiet import quiet_transformers
from mtc_core.sites import Site


def tap_hook_points(loaded: LoadedModel, sites: Sequence[Site]) -> Tapped:
    """Prepare hooks by name. Raises ModelError for a model that TransformerLens does not know,
    SiteError for a hook it does not have."""
    bridge = _bridge(loaded)

    def run(ids_CT: Tensor) -> None:
        bridge(ids_CT, return_type=None, use_cache=False)

    def logits(ids_CT: Tensor) -> Tensor:
        return bridge(ids_CT, return_type="logits", use_cache=False)

    return Tapped(
        run=run,
        logits=logits,
        taps=[_tap(bridge, site) for site in sites],
        blocks=list(getattr(bridge, "blocks", ())),
        unembedding=bridge.original_model.get_output_embeddings(),
        device=loaded.model.device,
    )


def _bridge(loaded: LoadedModel) -> Any:
    with quiet_transformers():
        # Not `boot_transformers`: for a model already loaded that still asks the Hub for a
        # tokenizer or image processor by name, and may even pip-install torchvision for one.
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        twin = _twin(loaded.model)
        try:
            twin.set_attn_implementation("eager")  # else hooks on attention scores stay silent
            return build_bridge_from_module(twin, type(twin).__name__, hf_config=twin.config)
        except ValueError as error:
            raise ModelError(
                f"TransformerLens cannot bridge {type(twin).__name__}: {str(error)[:200]}"
            ) from error


def _twin(model: Any) -> Any:
    """A second module tree on the same parameters and buffers: no weight is copied."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _tap(bridge: Any, site: Site) -> Tap:
    attach = partial(_on_point, _point(bridge, site))
    if site.kind == "resid_mid":  # there, too, the input of a norm
        assert site.layer is not None
        end = _point(bridge, Site.at(site.layer, "resid_post"))
        return Tap(site.tensor, partial(on_stream, attach, partial(_on_point, end)))
    return Tap(site.tensor, attach)


def _point(bridge: Any, site: Site) -> Any:
    points = bridge.hook_dict
    if site.hook not in points:
        near = difflib.get_close_matches(site.hook, points, n=3)
        hint = f"; near it are {', '.join(near)}" if near else ""
        raise SiteError(f"TransformerLens has no hook {site.hook} in this model{hint}")
    return points[site.hook]


def _on_point(point: Any, keep: Keep) -> Handle:
    def hook(tensor: Tensor, *, hook: Any) -> Tensor | None:
        return keep(tensor)

    return point.add_hook(hook).hook
