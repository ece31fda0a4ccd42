"""Tokens as text: whole characters, whatever the tokenizer cuts them into."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mtc_core.tokens.pieces import TokenText
from tests.core.tiny_models import BOS_ID, EOS_ID, tiny_tokenizer


@pytest.fixture(scope="module")
def byte_tokens():
    """A tokenizer with a token for each byte."""
    tokenizer = tiny_tokenizer()
    return tokenizer, TokenText(tokenizer)


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(max_size=20))
def test_pieces_are_the_characters_of_any_text(byte_tokens, text):
    tokenizer, tokens = byte_tokens
    ids = encode(tokenizer, text)
    pieces = tokens.pieces(ids)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.text for piece in pieces] == list(text)  # a byte is a token here
    ends = [piece.end for piece in pieces]
    assert [piece.first for piece in pieces] == [0, *ends][:-1] and ends == sorted(set(ends))
    assert not ids or ends[-1] == len(ids)


def test_only_what_is_no_character_is_replaced(byte_tokens):
    tokenizer, tokens = byte_tokens
    fox = encode(tokenizer, "🦊")
    whole = [*encode(tokenizer, "a"), *fox, *encode(tokenizer, "b")]
    assert [(p.text, p.first, p.end) for p in tokens.pieces(whole)] == [
        ("a", 0, 1), ("🦊", 1, 5), ("b", 5, 6),
    ]  # fmt: skip
    broken = [*fox[:2], *encode(tokenizer, "b")]
    assert "".join(p.text for p in tokens.pieces(broken)) == "\N{REPLACEMENT CHARACTER}b"
    assert "".join(p.text for p in tokens.pieces(fox[:3])) == "\N{REPLACEMENT CHARACTER}"
    assert tokens.text(fox[0]) == "<0xF0>"


def test_special_tokens_go_by_their_names_and_end_what_is_broken_off(byte_tokens):
    tokenizer, tokens = byte_tokens
    accent = encode(tokenizer, "é")
    pieces = tokens.pieces([BOS_ID, accent[0], EOS_ID, *accent])
    assert [(p.text, p.first, p.end) for p in pieces] == [
        ("<s>", 0, 1), ("\N{REPLACEMENT CHARACTER}", 1, 2), ("</s>", 2, 3), ("é", 3, 5),
    ]  # fmt: skip
    assert tokens.text(10_000) == "<10000>"


def test_sentencepiece_tokens_have_spaces_and_bytes():
    vocabulary = {"▁the": 0, "x": 1, "<0xC3>": 2, "<0xA9>": 3, "<unk>": 4}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokens = TokenText(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>"))
    assert [p.text for p in tokens.pieces([0, 1, 2, 3])] == [" the", "x", "é"]
    assert tokens.text(0) == " the" and tokens.text(2) == "<0xC3>"


def test_another_tokenizer_is_asked_for_its_own_text():
    core = Tokenizer(models.WordLevel({"hello": 0, "##x": 1}, unk_token="hello"))
    core.decoder = decoders.WordPiece()
    tokens = TokenText(PreTrainedTokenizerFast(tokenizer_object=core))
    assert tokens.text(0) == "hello"
