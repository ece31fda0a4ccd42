"""What is too long to go through a tokenizer at once, and what no model has an embedding for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mtc_core.errors import ModelError
from mtc_core.tokens import token_writer
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.token_writer import TokenWriter
from mtc_core.tokens.tokenizer import PROBE
from tests.core.tiny_text import BYTES, encode_bytes, write_jsonl

WORDS = " ".join(f"word{i}" for i in range(400)) + " " + "x" * 130
TEXTS = [WORDS, *(f"short {i} " * 4 for i in range(40))]


def written(folder: Path, facts) -> dict[str, bytes]:
    path = write_jsonl(folder.with_suffix(".jsonl"), TEXTS)
    data = DataConfig(path=str(path), context_tokens=16, holdout_tokens=64)
    TokenWriter(folder, data, facts).ensure(10**6)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


def test_a_very_long_document_goes_through_the_tokenizer_in_pieces(tmp_path, monkeypatch):
    """To the same tokens, with a tokenizer whose tokens end before spaces."""
    longest = []

    def encode_batch(texts):
        longest.append(max(map(len, texts), default=0))
        return encode_bytes(texts)

    wanted = written(tmp_path / "whole", BYTES)
    monkeypatch.setattr(token_writer, "PIECE_CHARACTERS", 50)
    found = written(tmp_path / "pieces", replace(BYTES, encode_batch=encode_batch))
    assert found == wanted and len(found) >= 6
    assert max(longest) <= max(50, len(PROBE))


def test_pieces_end_before_spaces_where_there_are_some(monkeypatch):
    monkeypatch.setattr(token_writer, "PIECE_CHARACTERS", 8)
    assert list(token_writer.cut("one two three four")) == ["one two", " three", " four"]
    assert list(token_writer.cut("abcdefghijklmnopq r")) == ["abcdefgh", "ijklmnop", "q r"]
    assert list(token_writer.cut("short")) == ["short"]


def test_a_token_without_an_embedding_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"gives token 257, and .* has 257 rows \(0 to 256\)"):
        written(tmp_path / "t", replace(BYTES, embedding_rows=257))
    written(tmp_path / "fits", replace(BYTES, embedding_rows=258))
