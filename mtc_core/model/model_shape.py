"""What a model is made of, read from its `config.json` alone: sizes, and which sites it has.

Enough to check a manifest and to plan memory and time without loading a weight, and without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtc_core.errors import ModelError, SiteError
from mtc_core.model.experts import Experts, dense_width, read_experts
from mtc_core.sites import Site

# model_type of a config -> family, where the `hf` capture provider knows the module tree.
FAMILY_OF_MODEL_TYPE: dict[str, str] = {
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "llama",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gpt_neox": "gpt_neox",
}
KNOWN_FAMILIES = frozenset(FAMILY_OF_MODEL_TYPE.values())

# Published configs leave out what equals the default of their class (Gemma 3's have no heads).
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {"tie_word_embeddings": True, "n_positions": 1024},
    "gemma2": {"tie_word_embeddings": True, "head_dim": 256, "num_key_value_heads": 4},
    "gemma3": {
        "tie_word_embeddings": True,
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
    },
    "qwen3": {"head_dim": 128},
    **{
        family: {"tie_word_embeddings": True}
        for family in (
            *("gpt_neo", "gpt_bigcode", "bloom", "opt", "falcon", "mpt", "starcoder2", "gemma"),
            *("cohere", "cohere2", "smollm3"),
        )
    },
}
_UNGATED = {
    *("gpt2", "gpt_neox", "gptj", "gpt_neo", "gpt_bigcode", "bloom", "opt", "phi", "falcon"),
    *("codegen", "mpt", "starcoder2"),
}
# Of an RMSNorm TransformerLens's `hook_normalized` comes before the weight. Of a LayerNorm it comes
# after weight and bias before version 4: our mlp_in, not our ln2_normalized.
LAYER_NORM_FAMILIES = frozenset({*_UNGATED, "cohere", "cohere2", "stablelm"})
# Their scores are soft-capped, which SDPA cannot do, so transformers keeps all of them at once.
EAGER_FAMILIES = frozenset({"gemma2"})
_PARALLEL = {"gptj", "phi", "codegen", "cohere", "cohere2"}
_LEARNED_POSITIONS = {"gpt2", "gpt_neo", "gpt_bigcode", "opt"}
_NAMES: dict[str, tuple[str, ...]] = {
    "n_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "d_model": ("hidden_size", "n_embd", "d_model"),
    "d_mlp": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff"),
    "n_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "n_kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "d_head": ("head_dim",),
    "vocab_size": ("vocab_size",),
    "max_context": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder-only language model.

    family is a name of KNOWN_FAMILIES, or the config's model_type for any other model: such a
    model is captured through the `bridge` provider. max_context is None where nothing bounds it.
    d_mlp is the hidden width of the MLP; gated_mlp says that it has three matrices, not two.
    experts are what most or all blocks have in its place, if they have.
    """

    family: str
    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    vocab_size: int
    max_context: int | None
    parallel_residual: bool
    gated_mlp: bool
    tied_embeddings: bool
    learned_positions: bool
    experts: Experts | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read the fields of a Hugging Face config.json. Raises ModelError where one is missing."""
        # A multimodal config nests that of its language model.
        nested = config.get("text_config")
        text = _present({**config, **(nested if isinstance(nested, dict) else {})})
        model_type = text.get("model_type")
        if not isinstance(model_type, str):
            raise ModelError("config.json names no model_type, so this is no transformers model")
        family = FAMILY_OF_MODEL_TYPE.get(model_type, model_type)
        read = _Fields({**_DEFAULTS.get(family, {}), **text}, model_type)
        d_model, n_heads = read.size("d_model"), read.size("n_heads")
        n_layers = read.size("n_layers")
        return cls(
            family=family,
            n_layers=n_layers,
            d_model=d_model,
            d_mlp=dense_width(text) or read.optional("d_mlp") or 4 * d_model,
            n_heads=n_heads,
            n_kv_heads=read.optional("n_kv_heads") or n_heads,
            d_head=read.optional("d_head") or d_model // n_heads,
            vocab_size=read.size("vocab_size"),
            max_context=read.optional("max_context"),
            parallel_residual=_is_parallel(model_type, text),
            gated_mlp=model_type not in _UNGATED,
            tied_embeddings=bool(read.config.get("tie_word_embeddings", False)),
            learned_positions=model_type in _LEARNED_POSITIONS,
            experts=read_experts(text, model_type, n_layers),
        )

    def check(self, site: Site) -> None:
        """Raises SiteError if this model cannot have the site. Hooks that we do not name
        ourselves are checked for their layer only: the bridge knows the rest once loaded."""
        if site.layer is None:
            return
        if site.layer >= self.n_layers:
            raise SiteError(
                f"{site}: layer {site.layer} is out of range; this model ({self.family}) has "
                f"layers 0 to {self.n_layers - 1}"
            )
        if site.kind == "resid_mid" and self.parallel_residual:
            raise SiteError(
                f"{site}: {self.family} adds attention and MLP to the residual stream in "
                "parallel, so it has no resid_mid; the MLP reads the same stream as attention: "
                f"use {site.layer}.resid_pre"
            )

    def width(self, site: Site) -> int | None:
        """Last dimension of the site's tensor, or None for hooks that we do not name ourselves
        (known after the first forward: `Capture.widths`)."""
        return self.d_model if site.kind else None

    @property
    def block_params(self) -> int:
        """Weights in the matrices of one block through which a token goes; a forward costs 2 × this
        FLOPs per token, and attention scores. Biases and norms (below 1 %) are left out. Where some
        blocks have experts and some have not, the mean."""
        if not self.experts:
            return self._attention_params + self._mlp_params(self.d_mlp)
        return self._attention_params + self._mean(self.experts.active_units)

    @property
    def params(self) -> int:
        """Weights in all matrices, embeddings included: of experts all, whoever goes through."""
        if not self.experts:
            return self.n_layers * self.block_params + self.embed_params
        each = self._attention_params + self._mean(self.experts.all_units)
        return self.n_layers * each + self.embed_params

    @property
    def _attention_params(self) -> int:
        d_q, d_kv = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        return self.d_model * (2 * d_q + 2 * d_kv)

    def _mlp_params(self, units: int) -> int:
        return (3 if self.gated_mlp else 2) * self.d_model * units

    def _mean(self, units: int) -> int:
        """Weights beside attention, over all blocks: experts of so many hidden units, with what
        chooses among them, or a plain MLP."""
        assert self.experts
        dense = self.experts.dense_blocks
        sparse = self._mlp_params(units) + self.d_model * self.experts.count
        total = dense * self._mlp_params(self.d_mlp) + (self.n_layers - dense) * sparse
        return total // self.n_layers

    @property
    def embed_params(self) -> int:
        """Weights of the embeddings: tokens, learned positions, and the unembedding if untied."""
        tables = self.vocab_size * (1 if self.tied_embeddings else 2)
        positions = (self.max_context or 0) if self.learned_positions else 0
        return self.d_model * (tables + positions)


@dataclass(frozen=True, slots=True)
class _Fields:
    """A config whose fields go by different names in different families."""

    config: Mapping[str, Any]
    model_type: str

    def optional(self, field: str) -> int | None:
        values = (self.config.get(name) for name in _NAMES[field])
        return next((v for v in values if isinstance(v, int) and v > 0), None)

    def size(self, field: str) -> int:
        value = self.optional(field)
        if value is None:
            names = " or ".join(_NAMES[field])
            raise ModelError(
                f"config.json of this {self.model_type} model has no {names}, which says its "
                f"{field}; such a model cannot be planned"
            )
        return value


def _present(config: Mapping[str, Any]) -> dict[str, Any]:
    # A null in a config stands for the default of its class.
    return {name: value for name, value in config.items() if value is not None}


def _is_parallel(model_type: str, config: Mapping[str, Any]) -> bool:
    if model_type == "gpt_neox":
        return bool(config.get("use_parallel_residual", True))
    if model_type == "falcon":
        return bool(config.get("parallel_attn", True) or config.get("new_decoder_architecture"))
    return model_type in _PARALLEL
