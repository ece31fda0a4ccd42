"""Tokens on disk: the text in order, the same bytes whatever happens while they are written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mtc_core.errors import DataError
from mtc_core.tokens.holdout import HALVES, text_key
from mtc_core.tokens.token_store import TokenStore
from mtc_core.tokens.token_writer import TokenWriter
from tests.core.tiny_text import (
    BARE_BYTES,
    BOS,
    BYTES,
    BYTES_WITHOUT_BOS,
    EOS,
    SPECIAL,
    data_of,
    encode_bytes,
    made_up_documents,
    write_jsonl,
)

ALL = 10**9
TEXTS = made_up_documents(200) + made_up_documents(50) + ["long " * 900] + made_up_documents(60, 1)


@pytest.fixture
def corpus(tmp_path) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", TEXTS)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def text_in(store: TokenStore, half=None) -> list[int]:
    """All text ids of the training windows, or of a half, EOS included."""
    sources = [store.holdout(half)] if half else [w.contexts() for w in store.windows]
    bos_width = store.settings["tokenizer"]["bos_id"] is not None
    return [i for c in sources for i in c.ids_CT[:, bos_width:].ravel().tolist()]


@pytest.mark.parametrize("tokenizer", [BYTES, BYTES_WITHOUT_BOS, BARE_BYTES])
def test_windows_hold_every_document_that_is_not_held_out_once_and_in_order(
    corpus, tmp_path, tokenizer
):
    store = TokenWriter(tmp_path / "tokens", data_of(corpus), tokenizer).ensure(ALL)
    held = set(store.held_keys)
    end = [] if tokenizer.eos_id is None else [EOS]
    expected = [i for t in TEXTS if text_key(t) not in held for i in encode_bytes([t])[0] + end]
    found = text_in(store)
    assert found == expected[: len(found)]
    assert len(expected) - len(found) < 16
    assert store.finished
    assert [window.n_contexts for window in store.windows[:-1]] == [64] * (len(store.windows) - 1)
    assert store.n_documents == len(TEXTS)


def test_rows_and_counts_agree_with_the_ids_and_no_special_token_is_a_row(corpus, tmp_path):
    store = TokenWriter(tmp_path / "tokens", data_of(corpus), BYTES).ensure(ALL)
    halves = [store.holdout(half) for half in HALVES]
    windows = [window.contexts() for window in store.windows]
    for contexts in halves + windows:
        assert contexts.ids_CT.dtype == np.int32
        assert contexts.rows_CT.dtype == np.bool_
        assert (contexts.ids_CT[:, 0] == BOS).all()
        assert np.array_equal(contexts.rows_CT, ~np.isin(contexts.ids_CT, list(SPECIAL)))
    assert store.train_rows == sum(c.n_rows for c in windows)
    assert store.train_tokens == sum(c.ids_CT.size for c in windows)


def test_the_holdout_is_whole_documents_a_tenth_at_most_in_equal_halves(corpus, tmp_path):
    data = data_of(corpus, holdout_tokens=10_000)  # more than a tenth of this corpus
    store = TokenWriter(tmp_path / "tokens", data, BYTES).ensure(ALL)
    halves = [store.holdout(half).ids_CT[:, 1:] for half in HALVES]
    sizes = [half.size for half in halves]
    whole = np.zeros((sum(map(len, halves)), halves[0].shape[1]), np.int32)
    turn = np.resize([0, 1, 1, 0], len(whole))
    whole[turn == 0], whole[turn == 1] = halves  # dealt A B B A
    text = bytes(i for i in whole.ravel().tolist() if i < 256).decode()
    total = sum(len(t.encode()) + 1 for t in TEXTS)
    assert 0.05 * total < sum(sizes) <= 0.1 * total * 16 / 15
    assert abs(len(halves[0]) - len(halves[1])) <= 1
    held = [t for t in dict.fromkeys(TEXTS) if text_key(t) in set(store.held_keys)]
    trained = bytes(i for i in text_in(store) if i < 256).decode()
    missing = [t for t in held if t not in text]
    assert missing in ([], held[-1:])  # the end may be cut with its last context
    assert not any(t in trained for t in held)


def test_no_more_text_is_read_than_the_rows_asked_for_need(corpus, tmp_path):
    writer = TokenWriter(
        tmp_path / "tokens", data_of(write_big(corpus), shuffle_tokens=65_536), BYTES
    )
    said: list[tuple[int, str]] = []
    store = writer.ensure(1, lambda ids, what: said.append((ids, what)))
    assert store.holdout_complete
    assert not store.finished
    assert store.n_documents < 2000
    assert said[-1][0] > 0
    assert "reading text" in said[-1][1]


def write_big(path: Path) -> Path:
    return write_jsonl(path, made_up_documents(10_000))


def test_asking_in_portions_by_new_or_old_writers_gives_the_same_bytes(corpus, tmp_path):
    TokenWriter(tmp_path / "whole", data_of(corpus), BYTES).ensure(ALL)
    patient = TokenWriter(tmp_path / "portions", data_of(corpus), BYTES)
    for rows in range(0, 20_000, 1500):
        patient.ensure(rows)
        assert patient.store.finished or patient.store.train_rows >= rows
        TokenWriter(tmp_path / "anew", data_of(corpus), BYTES).ensure(rows)
    patient.ensure(ALL)
    TokenWriter(tmp_path / "anew", data_of(corpus), BYTES).ensure(ALL)
    assert bytes_of(tmp_path / "portions") == bytes_of(tmp_path / "whole")
    assert bytes_of(tmp_path / "anew") == bytes_of(tmp_path / "whole")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("holdout_tokens", [64, 1024, 10_000], ids=["early", "late", "never full"])
def test_a_writer_killed_before_any_of_its_writes_goes_on_to_the_same_bytes(
    corpus, tmp_path, monkeypatch, holdout_tokens
):
    monkeypatch.setattr("mtc_core.atomic.sync", lambda path: None)
    monkeypatch.setattr("mtc_core.atomic.os.fsync", lambda handle: None)
    replace, writes, dies_at = os.replace, 0, -1

    def dying_replace(source, target):
        nonlocal writes
        if writes == dies_at:
            raise Killed
        writes += 1
        replace(source, target)

    monkeypatch.setattr("mtc_core.atomic.os.replace", dying_replace)
    data = data_of(corpus, holdout_tokens=holdout_tokens, shuffle_tokens=4096)
    TokenWriter(tmp_path / "whole", data, BYTES).ensure(ALL)
    expected, all_writes = bytes_of(tmp_path / "whole"), writes
    assert all_writes > 15
    for first in range(all_writes):
        folder = tmp_path / f"killed-{first}"
        for death in (first, first // 2 + 4, -1):
            writes, dies_at = 0, death
            with contextlib.suppress(Killed):
                TokenWriter(folder, data, BYTES).ensure(ALL)
        assert bytes_of(folder) == expected, first


SLOW_WRITER = """
import sys, time
from mtc_core.tokens.token_writer import TokenWriter
from tests.core.tiny_text import BYTES, data_of, encode_bytes
import dataclasses
def slow(texts):
    time.sleep(0.02 * (len(texts) > 1))
    return encode_bytes(texts)
data = data_of(sys.argv[1], shuffle_tokens=65_536)
TokenWriter(sys.argv[2], data, dataclasses.replace(BYTES, encode_batch=slow)).ensure(10**9)
"""


def test_a_writer_killed_by_the_system_goes_on_to_the_same_bytes(tmp_path):
    data = data_of(write_big(tmp_path / "corpus.jsonl"), shuffle_tokens=65_536)
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, data.path, str(folder)])
    deadline = time.monotonic() + 30
    while not (folder / "window-00001.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "window-00001.json").exists()
    assert not (folder / "end.json").exists()
    settings = {"data": data, "tokenizer": BYTES}
    TokenWriter(folder, **settings).ensure(ALL)
    TokenWriter(tmp_path / "whole", **settings).ensure(ALL)
    assert bytes_of(folder) == bytes_of(tmp_path / "whole")


def test_after_an_error_the_same_writer_goes_on_where_it_stood(corpus, tmp_path):
    failing = [False]

    def encode(texts):
        if failing[0] and len(texts) > 1:
            raise ConnectionError
        return encode_bytes(texts)

    data = data_of(write_big(corpus), shuffle_tokens=65_536)
    tokenizer = dataclasses.replace(BYTES, encode_batch=encode)
    writer = TokenWriter(tmp_path / "tokens", data, tokenizer)
    writer.ensure(1)
    failing[0] = True
    with pytest.raises(ConnectionError):
        writer.ensure(ALL)
    failing[0] = False
    assert writer.ensure(ALL).n_documents == 10_000
    TokenWriter(tmp_path / "whole", data, BYTES).ensure(ALL)
    assert bytes_of(tmp_path / "tokens") == bytes_of(tmp_path / "whole")


def test_a_reader_sees_windows_as_they_are_completed(corpus, tmp_path):
    writer = TokenWriter(
        tmp_path / "tokens", data_of(write_big(corpus), shuffle_tokens=65_536), BYTES
    )
    reader = TokenStore(tmp_path / "tokens")
    assert not reader.windows
    with pytest.raises(DataError, match="holdout is not complete"):
        reader.holdout("test")
    for rows in (1, 200_000, ALL):
        writer.ensure(rows)
        reader.refresh()
        assert len(reader.windows) == len(writer.store.windows)
        assert reader.train_rows == writer.store.train_rows
    assert reader.finished


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (dataclasses.replace(data, context_tokens=32), BYTES, "c1"), "16, now 32"),
        (lambda data: (data, BYTES_WITHOUT_BOS, "c1"), "tokenizer.bos_id: 256, now None"),
        (lambda data: (data, BYTES, "c2"), "identity: 'c1', now 'c2'"),
    ],
)
def test_tokens_of_other_settings_are_refused_with_the_difference(
    corpus, tmp_path, change, message
):
    data = data_of(corpus)
    TokenWriter(tmp_path / "tokens", data, BYTES, "c1").ensure(1)
    data, tokenizer, identity = change(data)
    with pytest.raises(DataError, match=message):
        TokenWriter(tmp_path / "tokens", data, tokenizer, identity)


def test_text_that_changed_is_refused_only_if_more_of_it_is_needed(corpus, tmp_path):
    data = data_of(write_big(corpus), shuffle_tokens=65_536)
    unfinished = TokenWriter(tmp_path / "some", data, BYTES).ensure(1)
    TokenWriter(tmp_path / "all", data, BYTES).ensure(ALL)
    with open(corpus, "a") as file:
        file.write('{"text": "more"}\n')
    TokenWriter(tmp_path / "all", data, BYTES).ensure(ALL)
    TokenWriter(tmp_path / "some", data, BYTES).ensure(unfinished.train_rows)
    with pytest.raises(DataError, match=r"changed since its tokens.*corpus\.jsonl"):
        TokenWriter(tmp_path / "some", data, BYTES).ensure(ALL)


@pytest.mark.parametrize("texts", [["just one"], ["x" * 40] * 50, ["a", "b", "c"]])
def test_text_too_short_for_a_holdout_is_refused_with_its_size(tmp_path, texts):
    path = write_jsonl(tmp_path / "short.jsonl", texts)
    for _ in range(2):  # the refusal is not taken for an end of the text
        with pytest.raises(DataError, match=rf"short\.jsonl has \d+ tokens in {len(texts)} doc"):
            TokenWriter(tmp_path / "tokens", data_of(path), BYTES).ensure(1)


def test_a_damaged_or_absent_store_is_said_to_be_so(corpus, tmp_path):
    with pytest.raises(DataError, match="no tokens here"):
        TokenStore(tmp_path)
    folder = tmp_path / "tokens"
    store = TokenWriter(folder, data_of(corpus), BYTES).ensure(ALL)
    path = folder / "window-00000.ids.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"window-00000\.ids\.npy is damaged.*delete the folder"):
        store.windows[0].contexts()
    (folder / "holdout.json").write_bytes(b'{"conte')
    with pytest.raises(DataError, match=r"holdout\.json is damaged"):
        TokenStore(folder)
