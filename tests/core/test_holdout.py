"""The holdout: at most a tenth, balanced, and no text on both sides."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mtc_core.tokens.holdout import Holdout, is_candidate, text_key

DOCUMENTS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=300)


def text_and_ids(number: int, length: int) -> tuple[str, np.ndarray]:
    """Document `number`; copies have the same text and length."""
    length = 1 + (number * 7 + length % 3) % 40
    return f"document {number} {length}", np.full(length, number, np.int32)


def share_out(documents, wanted_ids: int) -> tuple[Holdout, list[str], list[str]]:
    holdout, trained, taken = Holdout(wanted_ids), [], []
    for number, length in documents:
        text, ids = text_and_ids(number, length)
        (taken if holdout.takes(text, ids) else trained).append(text)
    return holdout, trained, taken


@given(DOCUMENTS, st.integers(5, 200))
@settings(deadline=None)
def test_copies_fall_on_one_side_and_at_most_a_tenth_is_held_out(documents, wanted_ids):
    holdout, trained, taken = share_out(documents, wanted_ids)
    assert not set(trained) & set(taken)
    assert {text_key(text) for text in taken} == holdout.held
    assert len(holdout.ids) <= holdout.held_tokens
    lengths = {text_and_ids(*d)[0]: len(text_and_ids(*d)[1]) for d in documents}
    kept = sum(lengths[text] for text in trained) + sum(lengths[text] for text in set(taken))
    assert 10 * holdout.held_tokens <= kept


@given(DOCUMENTS, st.integers(5, 200))
@settings(deadline=None)
def test_it_holds_whole_documents_but_for_what_overfills_it(documents, wanted_ids):
    holdout, _, taken = share_out(documents, wanted_ids)
    # A number may come in two lengths: two texts of the same ids.
    numbers = list(dict.fromkeys(int(text.split()[1]) for text in taken))
    assert len(holdout.ids) == min(holdout.held_tokens, wanted_ids)
    assert list(dict.fromkeys(holdout.ids.tolist())) == numbers[: len(set(holdout.ids.tolist()))]


def test_the_holdout_fills_and_then_only_its_copies_are_taken():
    documents = [(i, 0) for i in range(1000)]
    holdout, trained, taken = share_out(documents, 600)
    assert holdout.complete
    assert len(holdout.ids) == 600
    last_taken = documents.index((int(taken[-1].split()[1]), 0))
    later = [text_and_ids(*d)[0] for d in documents[last_taken + 1 :]]
    assert trained[-len(later) :] == later
    assert any(is_candidate(text_key(text)) for text in later)
    for text in taken:
        assert holdout.takes(text, np.zeros(3, np.int32))


def test_a_complete_holdout_restored_from_its_keys_decides_the_same_for_every_document():
    documents = [(i % 700, 0) for i in range(1000)]
    holdout, trained, taken = share_out(documents, 600)
    restored = Holdout(600, holdout.held)
    again = [text for text, ids in map(lambda d: text_and_ids(*d), documents)]
    assert [text for text in again if restored.takes(text, np.zeros(1, np.int32))] == taken
    assert [text for text in again if text_key(text) not in holdout.held] == trained


def test_a_fifth_of_texts_are_candidates_and_white_space_does_not_matter():
    share = np.mean([is_candidate(text_key(f"text {i}")) for i in range(5000)])
    assert 0.18 < share < 0.22
    assert text_key("a  b\n") == text_key("a b") != text_key("ab")
