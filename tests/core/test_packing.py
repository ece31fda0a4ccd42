"""Contexts hold the text in order, and no special token is ever a row."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtc_core.tokens.packing import pack, row_mask, text_per_context
from mtc_core.tokens.tokenizer import TokenizerFacts
from tests.core.tiny_text import BOS, EOS, PAD, SPECIAL

IDS = st.lists(st.integers(0, PAD), max_size=200)


@given(IDS, st.integers(2, 20), st.sampled_from([None, BOS]))
@settings(deadline=None)
def test_contexts_hold_the_text_in_order_less_an_incomplete_end(ids, context_tokens, bos_id):
    contexts = pack(np.array(ids, np.int32), context_tokens, bos_id, SPECIAL)
    width = text_per_context(context_tokens, bos_id)
    text = contexts.ids_CT[:, context_tokens - width :].ravel().tolist()
    assert text == ids[: len(text)]
    assert 0 <= len(ids) - len(text) < width
    assert contexts.ids_CT.shape[1] == context_tokens
    assert contexts.ids_CT.dtype == np.int32
    if bos_id is not None:
        assert (contexts.ids_CT[:, 0] == bos_id).all()


@given(IDS, st.sampled_from([None, BOS]))
@settings(deadline=None)
def test_rows_are_all_positions_of_text_but_the_first(ids, bos_id):
    contexts = pack(np.array(ids, np.int32), 8, bos_id, SPECIAL)
    for ids_T, rows_T in zip(contexts.ids_CT.tolist(), contexts.rows_CT.tolist(), strict=True):
        for position, (token, is_row) in enumerate(zip(ids_T, rows_T, strict=True)):
            assert is_row == (token not in SPECIAL and position > 0)


def test_special_tokens_are_masked_wherever_they_stand():
    ids_CT = np.array([[BOS, 5, EOS, 6, PAD, BOS, 7]], np.int32)
    assert row_mask(ids_CT, SPECIAL).tolist() == [[False, True, False, True, False, False, True]]


@pytest.fixture(scope="module")
def hf_tokenizer():
    import transformers
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<unk>": 2, "<s>": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken("<reserved>", special=True)])
    backend.add_tokens([AddedToken("  ", special=False)])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="<unk>", model_max_length=8
    )


def test_a_transformers_tokenizer_adds_nothing_and_warns_of_nothing(hf_tokenizer, caplog):
    facts = TokenizerFacts.from_hf(hf_tokenizer)
    assert facts.encode_batch([]) == []
    with caplog.at_level(logging.WARNING):
        logging.getLogger("transformers").propagate = True
        assert facts.encode_batch(["a b " * 10, "b"]) == [[0, 1] * 10, [1]]
    assert not caplog.records
    assert (facts.bos_id, facts.eos_id) == (3, None)
    assert facts.vocab_size == len(hf_tokenizer)


def test_reserved_tokens_are_special_and_added_words_are_not(hf_tokenizer):
    facts = TokenizerFacts.from_hf(hf_tokenizer)
    reserved, spaces = hf_tokenizer.convert_tokens_to_ids(["<reserved>", "  "])
    assert reserved in facts.special_ids
    assert spaces not in facts.special_ids


def test_tokenizers_that_encode_differently_have_different_identities():
    common = (None, None, frozenset(), 256)
    plain = TokenizerFacts(lambda texts: [list(t.encode()) for t in texts], *common)
    lower = TokenizerFacts(lambda texts: [list(t.lower().encode()) for t in texts], *common)
    assert plain.identity() == plain.identity() != lower.identity()
