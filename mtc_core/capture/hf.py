"""Hooks on the modules of a transformers model, which runs as it is: with SDPA, in one pass.

C contexts · T positions of a context · D width of a site
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mtc_core.capture.families import LAYOUTS, Layout, place_of
from mtc_core.capture.forward import Handle, Keep, Tap, Tapped
from mtc_core.capture.stream import on_stream
from mtc_core.errors import ModelError
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import Site


def tap_modules(loaded: LoadedModel, sites: Sequence[Site]) -> Tapped:
    """Prepare the common sites of a known family. Raises ModelError for an unknown module tree."""
    layout = LAYOUTS[loaded.shape.family]
    # The text model below any multimodal wrapper and below the unembedding.
    decoder = loaded.model.get_decoder()
    blocks = list(_child(decoder, layout.blocks))

    def run(ids_CT: Tensor) -> None:
        decoder(input_ids=ids_CT, use_cache=False)

    def logits(ids_CT: Tensor) -> Tensor:
        return loaded.model(input_ids=ids_CT, use_cache=False).logits

    return Tapped(
        run=run,
        logits=logits,
        taps=[_tap(blocks, layout, site) for site in sites],
        blocks=blocks,
        unembedding=loaded.model.get_output_embeddings(),
        device=loaded.model.device,
    )


def _tap(blocks: Sequence[nn.Module], layout: Layout, site: Site) -> Tap:
    assert site.layer is not None and site.kind is not None, site
    name, where = place_of(layout, site.kind)
    block = blocks[site.layer]
    module = block if name is None else _child(block, name)
    if site.kind == "resid_mid":
        return Tap(
            site.tensor, partial(on_stream, partial(_on_input, module), partial(_on_output, block))
        )
    attach = {"input": _on_input, "output": _on_output, "normalized": _on_normalized}[where]
    return Tap(site.tensor, partial(attach, module))


def _on_input(module: nn.Module, keep: Keep) -> Handle:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = keep(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": new})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_output(module: nn.Module, keep: Keep) -> Handle:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return keep(output)
        new = keep(output[0])
        return None if new is None else (new, *output[1:])

    return module.register_forward_hook(hook)


def _on_normalized(module: nn.Module, keep: Keep) -> Handle:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        new = keep(_normalized(module, args[0]))
        assert new is None, "not a tensor of its own: mtc_core.splice refuses it"

    return module.register_forward_pre_hook(hook)


def _normalized(norm: nn.Module, x_CTD: Tensor) -> Tensor:
    """The norm's result before its weight and bias, in x's dtype.

    Dividing the weight out of its output instead would fail where a weight is zero."""
    if isinstance(norm, nn.LayerNorm):
        return nn.functional.layer_norm(x_CTD, norm.normalized_shape, eps=norm.eps)
    eps: Any = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    wide = x_CTD.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x_CTD.dtype)


def _child(module: nn.Module, name: str) -> Any:
    if not hasattr(module, name):
        import transformers

        raise ModelError(
            f"transformers {transformers.__version__} has no {name!r} in {type(module).__name__}, "
            "where the hf provider looks for a site; use the bridge provider"
        )
    return getattr(module, name)
