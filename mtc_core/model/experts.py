"""Mixtures of experts, read from a config.json: MLPs of which each token goes through a few, while
all of them lie in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtc_core.errors import ModelError

_COUNT = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_PER_TOKEN = (
    *("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts"),
    *("moe_k", "moe_topk"),
)
_SWITCHES = ("is_moe", "enable_moe_block")  # of families that always tell of experts
# Where a config has both, intermediate_size is the width of the blocks without experts.
_WIDTH = (
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "intermediate_size",
    "ffn_dim",
    "ffn_hidden_size",
)


@dataclass(frozen=True, slots=True)
class Experts:
    """In the place of an MLP, in all blocks but `dense_blocks` of them: `count` experts of a hidden
    `width`, of which a token goes through `per_token`, and through all of the `shared_width`."""

    count: int
    width: int
    per_token: int
    shared_width: int
    dense_blocks: int

    @property
    def all_units(self) -> int:
        """Hidden units of a block."""
        return self.count * self.width + self.shared_width

    @property
    def active_units(self) -> int:
        """Those that a token goes through."""
        return self.per_token * self.width + self.shared_width


def read_experts(config: Mapping[str, Any], model_type: str, n_layers: int) -> Experts | None:
    """Those that a config tells of. One that does not say how many a token goes through is planned
    as if it went through all: memory is right, and time no less than it takes. Raises ModelError
    where it does not say how large they are."""
    count = _first(config, _COUNT)
    if count is None or count == 1 or any(config.get(name) is False for name in _SWITCHES):
        return None
    width = _first(config, _WIDTH)
    if width is None:
        raise ModelError(
            f"config.json of this {model_type} model has {count} experts and no "
            f"{' or '.join(_WIDTH)}; such a model cannot be planned"
        )
    return Experts(
        count=count,
        width=width,
        per_token=min(_first(config, _PER_TOKEN) or count, count),
        shared_width=_shared_width(config, model_type, width),
        dense_blocks=sum(_is_dense(layer, config) for layer in range(n_layers)),
    )


def dense_width(config: Mapping[str, Any]) -> int | None:
    """Of the MLPs beside experts, where those have intermediate_size for themselves."""
    return _first(config, ("intermediate_size_mlp",))


def _shared_width(config: Mapping[str, Any], model_type: str, width: int) -> int:
    if (given := _first(config, ("shared_expert_intermediate_size",))) is not None:
        return given
    if model_type.startswith("llama4"):  # which has one, always
        return width
    if model_type.startswith("gemma4"):  # whose MLP stands beside its experts
        return _first(config, ("intermediate_size",)) or 0
    return width * (_first(config, ("n_shared_experts", "moe_num_shared_experts")) or 0)


def _is_dense(layer: int, config: Mapping[str, Any]) -> bool:
    """Whether a block has one MLP instead: the first few, those that are listed, or all but every
    n-th, in the ways of DeepSeek, Qwen, Llama 4 and Jamba."""
    if layer < (_first(config, ("first_k_dense_replace",)) or 0):
        return True
    if layer in (config.get("mlp_only_layers") or ()):
        return True
    if period := _first(config, ("expert_layer_period",)):
        return layer % period != (config.get("expert_layer_offset") or 0)
    every = _first(config, ("decoder_sparse_step", "interleave_moe_layer_step")) or 1
    return (layer + 1) % every != 0


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and v > 0), None)
