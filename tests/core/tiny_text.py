"""A byte-level tokenizer and made-up corpora, for tests of the way from text to rows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.tokenizer import TokenizerFacts

BOS, EOS, PAD = 256, 257, 258
SPECIAL = frozenset({BOS, EOS, PAD})


def encode_bytes(texts: list[str]) -> list[list[int]]:
    return [list(text.encode()) for text in texts]


BYTES = TokenizerFacts(encode_bytes, BOS, EOS, SPECIAL, 259)
BYTES_WITHOUT_BOS = TokenizerFacts(encode_bytes, None, EOS, frozenset({EOS, PAD}), 259)
BARE_BYTES = TokenizerFacts(encode_bytes, None, None, frozenset(), 256)


def made_up_documents(n: int, seed: int = 0, words: int = 12) -> list[str]:
    """n distinct documents of about `words` words."""
    draw = random.Random(seed)
    vocabulary = ["a", "of", "the", "cat", "sat", "ran", "über", "naïve", "猫", "tree", "house"]
    return [
        " ".join([str(i), *draw.choices(vocabulary, k=draw.randrange(1, 2 * words))])
        for i in range(n)
    ]


def write_jsonl(path: Path, texts: Iterable[Any], column: str = "text") -> Path:
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts))
    return path


def data_of(path: Path | str, **settings: Any) -> DataConfig:
    """Settings small enough that a few kilobytes make several windows and a full holdout."""
    small = {"context_tokens": 16, "holdout_tokens": 256, "shuffle_tokens": 1024}
    return DataConfig(path=str(path), **{**small, **settings})
