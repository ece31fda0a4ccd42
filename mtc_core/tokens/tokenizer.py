"""The few facts about a tokenizer that data needs: how to encode, and which ids are special."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mtc_core.errors import ModelError
from mtc_core.seeds import digest

# Cased, accented, spaced and broken text: tokenizers that agree on this agree on most.
PROBE = "The quick brown fox, naïve\u2014\u4f60\u597d 12345\n\n\tdef f(x): return x**2  # ½ 🦊"


@dataclass(frozen=True)
class TokenizerFacts:
    """What turns text into ids.

    encode_batch gives the ids of each text, without BOS or EOS around them.
    special_ids are all ids that stand for no text: BOS, EOS, pad, chat marks, reserved ones.
    embedding_rows: of the model that will read the ids, where that is known.
    """

    encode_batch: Callable[[list[str]], list[list[int]]]
    bos_id: int | None
    eos_id: int | None
    special_ids: frozenset[int]
    vocab_size: int
    embedding_rows: int | None = None

    def check(self, largest_id: int) -> None:
        """Raises ModelError for an id that the model has no embedding for."""
        if self.embedding_rows is not None and largest_id >= self.embedding_rows:
            raise ModelError(
                f"model.name: the tokenizer gives token {largest_id}, and the model's embedding "
                f"has {self.embedding_rows} rows (0 to {self.embedding_rows - 1}): they are of "
                "different models, or tokens were added after training; give a folder in which "
                "they belong together"
            )

    def __post_init__(self) -> None:
        for name in ("bos_id", "eos_id"):
            value = getattr(self, name)
            assert value is None or value in self.special_ids, f"{name} {value} is not special"

    @classmethod
    def from_hf(cls, tokenizer: Any, embedding_rows: int | None = None) -> TokenizerFacts:
        """The facts of a `transformers` tokenizer."""

        def encode_batch(texts: list[str]) -> list[list[int]]:
            if not texts:  # it raises IndexError
                return []
            # verbose=False: documents are longer than the model's context, and that is fine.
            return tokenizer(
                texts, add_special_tokens=False, return_attention_mask=False, verbose=False
            )["input_ids"]

        # Reserved tokens (Llama-3 has 250) are special but not in all_special_ids.
        added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        return cls(
            encode_batch=encode_batch,
            bos_id=tokenizer.bos_token_id,
            eos_id=tokenizer.eos_token_id,
            special_ids=frozenset(added | set(tokenizer.all_special_ids)),
            vocab_size=len(tokenizer),
            embedding_rows=embedding_rows,
        )

    def identity(self) -> dict[str, Any]:
        """JSON-able; differs between tokenizers that would give other tokens."""
        return {
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "special_ids": digest(sorted(self.special_ids))[:16],
            "vocab_size": self.vocab_size,
            "probe": digest(self.encode_batch([PROBE]))[:16],
        }
