"""Small language models with random weights, one per family, and a byte tokenizer for them.

No test of ours may need a model hub, so these stand in for real models: same classes, same module
trees, a few thousand weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# 256 bytes and two special tokens.
BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 256, 257
VOCAB_SIZE = 258
D_MODEL = 32
FAMILIES = (
    "gpt2",
    "llama",
    "mistral",
    "gemma2",
    "gemma3",
    "qwen2",
    "qwen3",
    "gpt_neox",
    "gpt_neox_sequential",
)


def tiny_config(family: str, n_layers: int = 3) -> Any:
    """A transformers config of `family` with d_model 32 and contexts of up to 64 tokens."""
    import transformers as tf

    ids = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": None}
    common: dict[str, Any] = {
        "hidden_size": D_MODEL,
        "intermediate_size": 48,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 64,
        "initializer_range": 0.15,
        **ids,
    }
    grouped = {**common, "num_key_value_heads": 2}
    wide = {**grouped, "head_dim": 12}  # heads together wider than d_model, as in Gemma
    match family:
        case "gpt2":
            return tf.GPT2Config(
                n_embd=D_MODEL,
                n_layer=n_layers,
                n_head=4,
                n_positions=64,
                vocab_size=VOCAB_SIZE,
                initializer_range=0.15,
                **ids,
            )
        case "llama":
            return tf.LlamaConfig(**grouped)
        case "mistral":
            return tf.MistralConfig(**grouped)
        case "gemma2":
            return tf.Gemma2Config(**wide, query_pre_attn_scalar=12, sliding_window=8)
        case "gemma3":
            return tf.Gemma3TextConfig(**wide, query_pre_attn_scalar=12, sliding_window=8)
        case "qwen2":
            return tf.Qwen2Config(**grouped)
        case "qwen3":
            return tf.Qwen3Config(**wide)
        case "gpt_neox":
            return tf.GPTNeoXConfig(**common)
        case "gpt_neox_sequential":
            return tf.GPTNeoXConfig(**common, use_parallel_residual=False)
    raise AssertionError(f"no tiny model of family {family!r}")


def tiny_model(family: str = "llama", n_layers: int = 3, seed: int = 0) -> Any:
    """A transformers model in eval mode whose norms and biases are not at their trivial values."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, n_layers))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def tiny_tokenizer() -> Any:
    """Bytes as tokens (ids 0 to 255), BOS 256 and EOS 257, neither added by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS)


def save_tiny_model(folder: Path, family: str = "llama", n_layers: int = 3, seed: int = 0) -> Path:
    """Write a tiny model with its tokenizer to `folder`, as the Hub would hold it."""
    tiny_model(family, n_layers, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
