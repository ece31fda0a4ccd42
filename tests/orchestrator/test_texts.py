"""A text of the user's: its first tokens, and no more work than they take."""

import random
from dataclasses import replace

import numpy as np
import pytest

from mtc_core.tokens import token_writer
from mtc_core.tokens.packing import pack
from orchestrator.evaluating.texts import own_text
from tests.core.tiny_text import BARE_BYTES, BYTES, data_of, encode_bytes, write_jsonl


def words(draw, characters):
    text = ""
    while len(text) < characters:
        text += draw.choice(["a", "cat", "über", "猫", "houses"]) + draw.choice(" \n ")
    return text[:characters]


@pytest.mark.parametrize("facts", [BYTES, BARE_BYTES], ids=["eos", "bare"])
@pytest.mark.parametrize("lengths", [(3000,), (40, 70, 2000, 10), (30, 20, 900)])
@pytest.mark.parametrize("most", [64, 65, 700, 10**6])
def test_only_what_is_used_of_a_long_document_is_tokenized(
    tmp_path, monkeypatch, facts, lengths, most
):
    """All of a line of 10 MB took 1.4 GB. The ids are those of documents tokenized whole."""
    draw, encoded, said = random.Random(), [], []
    texts = [words(draw, n) for n in lengths]
    path = write_jsonl(tmp_path / "mine.jsonl", texts)

    def encode_batch(batch):
        encoded.extend(batch)
        return encode_bytes(batch)

    monkeypatch.setattr(token_writer, "PIECE_CHARACTERS", 50)
    data = data_of(tmp_path / "other.jsonl")
    text = own_text(str(path), data, replace(facts, encode_batch=encode_batch), said.append, most)

    end = [] if facts.eos_id is None else [facts.eos_id]
    ids = [id for text in texts for id in (*text.encode(), *end)]
    wanted = pack(np.array(ids[:most], np.int32), 16, facts.bos_id, facts.special_ids)
    assert np.array_equal(text.contexts.ids_CT, wanted.ids_CT)
    assert np.array_equal(text.contexts.rows_CT, wanted.rows_CT)
    assert max(map(len, encoded)) <= 50 and sum(map(len, encoded)) < most + 50
    assert said == ([f"{path}: its first {most:,} tokens"] if len(ids) >= most else [])
