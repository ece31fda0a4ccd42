"""Tokens as people read them: the bytes of each, and text cut where tokens and characters both end.

A byte-level token may hold part of a character; by itself it would read as garbage. So a text is
decoded as a whole, and tokens that share a character are one piece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # a byte that SentencePiece has no token for
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of the tokens from `first` to before `end`."""

    text: str
    first: int
    end: int


class TokenText:
    """The text of a tokenizer's tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = {int(id) for id in tokenizer.all_special_ids}
        self._special |= {int(i) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        self._bytes_of = _reader(tokenizer)
        self._known: dict[int, bytes] = {}

    def raw(self, id: int) -> bytes:
        """What a token stands for; of a special one, its name."""
        if id not in self._known:
            self._known[id] = self._look_up(id)
        return self._known[id]

    def text(self, id: int) -> str:
        """One token by itself; bytes that are no whole character as <0xE2>."""
        raw = self.raw(id)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in raw)

    def pieces(self, ids: Sequence[int]) -> list[Piece]:
        """The text of these tokens; joined, it is all of it."""
        found: list[Piece] = []
        first, pending = 0, b""
        for place, id in enumerate(ids):
            if id in self._special and pending:  # no character goes on beyond it
                found.append(Piece(pending.decode(errors="replace"), first, place))
                first, pending = place, b""
            pending += self.raw(id)
            if not _unfinished(pending):
                found.append(Piece(pending.decode(errors="replace"), first, place + 1))
                first, pending = place + 1, b""
        if pending:
            found.append(Piece(pending.decode(errors="replace"), first, len(ids)))
        return found

    def _look_up(self, id: int) -> bytes:
        token = self._tokenizer.convert_ids_to_tokens(id)
        if token is None:  # a row of the unembedding beyond the vocabulary
            return f"<{id}>".encode()
        if id in self._special:
            return str(token).encode()
        return self._bytes_of(id, str(token))


def _reader(tokenizer: Any) -> Any:
    """How this tokenizer's vocabulary spells bytes, as its own decoder says."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = repr(json.loads(backend.to_str())["decoder"]) if backend is not None else ""
    if "ByteLevel" in decoder:
        return _byte_level
    if "▁" in decoder or "Metaspace" in decoder:
        return _sentence_piece
    return lambda id, token: str(tokenizer.decode([id])).encode()


def _byte_level(id: int, token: str) -> bytes:
    table = _byte_of_character()
    if all(character in table for character in token):
        return bytes(table[character] for character in token)
    return token.encode()  # an added token, which is spelt as it is


def _sentence_piece(id: int, token: str) -> bytes:
    if byte := _BYTE.fullmatch(token):
        return bytes([int(byte[1], 16)])
    return token.replace("▁", " ").encode()


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def _unfinished(raw: bytes) -> bool:
    """Whether this ends in the beginning of a character that may still be completed."""
    for back in range(1, min(4, len(raw) + 1)):
        byte = raw[-back]
        if byte >= 0xC0:  # a character begins here; is it whole?
            needed = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return byte < 0xF8 and back < needed
        if byte < 0x80:
            return False
    return False
