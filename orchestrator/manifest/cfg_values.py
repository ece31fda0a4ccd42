"""Values of the guide's config as its users write them: dtypes, lists, sites, short model names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from mtc_core.errors import SiteError
from mtc_core.model.model_source import is_local
from mtc_core.sites import KINDS, Site
from orchestrator.manifest.scalars import Wrong, count, list_of, number, text
from orchestrator.messages import found, suggestion
from orchestrator.model_shapes import known_configs

Read = Callable[[object], Any]

_DTYPES = {
    **dict.fromkeys(("float32", "fp32", "float"), "float32"),
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat16"),
    **dict.fromkeys(("float16", "fp16", "half"), "float16"),
}
_NOT_TRAINED = ("jumprelu", "vanilla", "standard", "relu", "gated")
# By the names of TransformerLens, with and without `hook_`. Its `hook_mlp_in` is the stream before
# the norm; the guide means, and trains on, what the MLP reads.
_KIND_OF = {
    **{kind: kind for kind in KINDS},
    **{hook.split(".", 2)[2]: kind for kind, hook in KINDS.items()},
    "hook_mlp_in": "mlp_in",
}
_PER_HEAD = ("q", "k", "v", "z", "rot_q", "rot_k", "pattern", "attn_scores", "result")
_WITH_LAYER = re.compile(r"(?:blocks\.)?(?P<layer>[0-9]{1,3})\.(?P<rest>.+)")
# TransformerLens's own short names; others are the last part of a Hub id.
_SHORT_NAMES = {
    "gpt2-small": "gpt2",
    "distillgpt2": "distilgpt2",
    "gemma-2-27b": "google/gemma-2-27b",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
}


def dtype(*allowed: str) -> Read:
    """`torch.bfloat16`, `bfloat16` or `bf16`."""

    def read(value: object) -> str:
        word = value.lower().removeprefix("torch.") if isinstance(value, str) else ""
        if _DTYPES.get(word) not in allowed:
            raise Wrong(f"must be {' or '.join(allowed)}, found {found(value)}")
        return _DTYPES[word]

    return read


def sizes(value: object) -> tuple[int, ...]:
    """A list, or its characters, which is what the guide's logger makes of it."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value, parse_int=str, parse_float=str)
        except ValueError:
            raise Wrong(f"must be a list such as [768, 1536], found {found(value)}") from None
    return list_of(count()).read(value)


def share(value: object) -> float:
    """A number, or a fraction: `1/32`."""
    fraction = re.fullmatch(r"([0-9]{1,9})/([1-9][0-9]{0,8})", str(value))
    return int(fraction[1]) / int(fraction[2]) if fraction else number().read(value)


def no_l1(value: object) -> None:
    """Refuses a penalty that would be missing from the loss."""
    if number().read(value):
        raise Wrong(f"must be 0: k alone makes latents sparse here, found {found(value)}")


def selection(value: object) -> str:
    """`sae_type` is a label: the guide's transcoder keeps the largest of the batch in any case."""
    word = text().read(value)
    if word.lower() in _NOT_TRAINED:
        raise Wrong(f"{found(word)} is not trained here, only TopK and BatchTopK")
    return "batchtopk"


def site(written: str, layer: int | None, end: str) -> Site:
    """`mlp_out`, `hook_mlp_out`, `ln2.hook_normalized`, `8.mlp_out` or `blocks.8.hook_mlp_out`.

    end: `source` or `target`. Raises Wrong."""
    rest = written
    if own := _WITH_LAYER.fullmatch(written):
        here = int(own["layer"])
        if layer is not None and here != layer:
            raise Wrong(f"{found(written)} is in layer {here}, and {end}_layer is {layer}")
        layer, rest = here, own["rest"]
    if layer is None:
        raise Wrong(f"{found(written)} has no layer; add {end}_layer")
    if kind := _KIND_OF.get(rest):
        return Site.at(layer, kind)
    if rest in _PER_HEAD:
        raise Wrong(f"{found(rest)} is per head; a site needs [batch, position, width]: attn_out")
    if "hook_" not in rest:
        raise Wrong(
            f"unknown site {found(rest)}{suggestion(rest, KINDS)}; or a hook name such as "
            "mlp.hook_post"
        )
    try:
        return Site.parse(f"blocks.{layer}.{rest}")
    except SiteError as error:
        raise Wrong(str(error)) from None


def model_id(name: str) -> str:
    """`gemma-2-2b` as the Hub calls it. A folder here, or a name not known, stays as it is."""
    known = known_configs()
    if name in known or "/" in name or is_local(name):
        return name
    same = (id for id in known if id.rpartition("/")[2].lower() == name.lower())
    return _SHORT_NAMES.get(name.lower()) or next(same, name)
