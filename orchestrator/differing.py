"""What tells the transcoders of a suite apart, beside their sites: a sweep's own columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = ("k", "seed", "lr", "selection", "group_sizes", "prefix_weights", "aux_weight", "k_aux")
_YOUNGER = {"skip": False}  # in a spec only where they say something


def differing(
    specs: Sequence[Mapping[str, Any]], but: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Name -> a word for each spec (of `TranscoderSpec.to_dict`), for every key whose value is not
    the same in all; keys in `but` are left out."""
    words = {name: tuple(_word(spec.get(name)) for spec in specs) for name in _NAMES}
    for name, usual in _YOUNGER.items():
        words[name] = tuple(_word(spec.get(name, usual)) for spec in specs)
    return {name: each for name, each in words.items() if len(set(each)) > 1 and name not in but}


def apart_by_id(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The same of a suite by its ids: name -> id -> word."""
    columns = differing(list(specs.values()))
    return {name: dict(zip(specs, words, strict=True)) for name, words in columns.items()}


def _word(value: Any) -> str:
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "+".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
