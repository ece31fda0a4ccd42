"""Where each family of models keeps its sites: the names of its modules in transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Where = Literal["input", "output", "normalized"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Module names below the decoder (`blocks`, `final_norm`) and below a block (all others).

    ln1, ln2 normalise what attention and MLP read. attn_out, mlp_out end the two branches: their
    output is what is added to the residual stream.
    """

    blocks: str
    final_norm: str
    ln1: str
    attn_out: str
    ln2: str
    mlp: str
    mlp_out: str


_LLAMA = Layout(
    blocks="layers",
    final_norm="norm",
    ln1="input_layernorm",
    attn_out="self_attn",
    ln2="post_attention_layernorm",
    mlp="mlp",
    mlp_out="mlp",
)
# Gemma normalises both branches once more before adding them.
_GEMMA = Layout(
    blocks="layers",
    final_norm="norm",
    ln1="input_layernorm",
    attn_out="post_attention_layernorm",
    ln2="pre_feedforward_layernorm",
    mlp="mlp",
    mlp_out="post_feedforward_layernorm",
)
LAYOUTS: dict[str, Layout] = {
    "gpt2": Layout(
        blocks="h",
        final_norm="ln_f",
        ln1="ln_1",
        attn_out="attn",
        ln2="ln_2",
        mlp="mlp",
        mlp_out="mlp",
    ),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "gpt_neox": Layout(
        blocks="layers",
        final_norm="final_layer_norm",
        ln1="input_layernorm",
        attn_out="attention",
        ln2="post_attention_layernorm",
        mlp="mlp",
        mlp_out="mlp",
    ),
}


def place_of(layout: Layout, kind: str) -> tuple[str | None, Where]:
    """The module below a block (None: the block itself) and which of its tensors `kind` is."""
    places: dict[str, tuple[str | None, Where]] = {
        "resid_pre": (None, "input"),
        "ln1_out": (layout.ln1, "output"),
        "attn_out": (layout.attn_out, "output"),
        "resid_mid": (layout.ln2, "input"),
        "ln2_normalized": (layout.ln2, "normalized"),
        "mlp_in": (layout.mlp, "input"),
        "mlp_out": (layout.mlp_out, "output"),
        "resid_post": (None, "output"),
    }
    return places[kind]
