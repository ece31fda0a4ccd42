"""Blocks: exact, complete, the same however and whenever they are asked for."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtc_core.errors import DataError
from mtc_core.tokens.schedule import Block, Schedule, permutation, rows_to_store
from mtc_core.tokens.token_store import TokenStore
from mtc_core.tokens.token_writer import TokenWriter
from tests.core.tiny_text import BYTES, SPECIAL, data_of, made_up_documents, write_jsonl

ALL = 10**9


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TokenStore:
    folder = tmp_path_factory.mktemp("schedule")
    data = data_of(write_jsonl(folder / "corpus.jsonl", made_up_documents(120)))
    store = TokenWriter(folder / "tokens", data, BYTES).ensure(ALL)
    assert len(store.windows) > 3
    return store


def rows_of(block: Block) -> np.ndarray:
    return block.ids_CT.ravel()[block.flat_rows]


def same(a: Block, b: Block) -> bool:
    return np.array_equal(a.ids_CT, b.ids_CT) and np.array_equal(a.flat_rows, b.flat_rows)


def contexts_of_pass(schedule: Schedule, e: int) -> list[bytes]:
    """What a naive loop would visit in pass e."""
    found = []
    for w, window in enumerate(schedule.store.windows):
        order = permutation(window.n_contexts, schedule.seed, "contexts", e, w)
        found += [ids_T.tobytes() for ids_T in window.contexts().ids_CT[order]]
    return found


@given(block_rows=st.integers(1, 12_000), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=25)
def test_blocks_visit_every_context_once_a_pass_and_end_as_soon_as_they_can(
    store, block_rows, seed
):
    schedule = Schedule(store, seed, block_rows)
    visits: list[bytes] = []
    n_blocks = min(60, math.ceil(2.5 * store.train_rows / block_rows))
    for b in range(n_blocks):
        block = schedule.block(b)
        assert len(block.flat_rows) == len(set(block.flat_rows.tolist())) == block_rows
        rows_CT = ~np.isin(block.ids_CT, list(SPECIAL))
        before_last = np.count_nonzero(rows_CT[:-1])
        assert before_last < block_rows <= np.count_nonzero(rows_CT)
        # all rows but a surplus of the last context
        assert set(np.flatnonzero(rows_CT)[:block_rows]) == set(block.flat_rows.tolist())
        assert block.pass_index == len(visits) // sum(w.n_contexts for w in store.windows)
        visits += [ids_T.astype(np.int32).tobytes() for ids_T in block.ids_CT]
    expected = [c for e in range(4 + 12_000 // 3000) for c in contexts_of_pass(schedule, e)]
    assert visits == expected[: len(visits)]


def test_no_special_token_is_ever_trained_on(store):
    schedule = Schedule(store, 0, 500)
    for b in range(40):
        assert not set(rows_of(schedule.block(b)).tolist()) & SPECIAL


def test_each_pass_permutes_the_same_contexts_differently(store):
    schedule = Schedule(store, 0, 500)
    first, second = contexts_of_pass(schedule, 0), contexts_of_pass(schedule, 1)
    assert Counter(first) == Counter(second)
    assert first != second
    assert first != contexts_of_pass(Schedule(store, 1, 500), 0)


@given(st.permutations(range(40)))
@settings(max_examples=10, deadline=None)
def test_random_access_equals_sequential_access(store, order):
    in_order = Schedule(store, 7, 600)
    blocks = [in_order.block(b) for b in range(40)]
    anyhow = Schedule(store, 7, 600)
    assert all(same(anyhow.block(b), blocks[b]) for b in order)
    assert all(same(Schedule(store, 7, 600).block(b), blocks[b]) for b in order[:3])


def test_rows_within_a_block_are_shuffled_by_block_and_seed(store):
    schedule = Schedule(store, 0, 600)
    orders = [schedule.block(b).flat_rows for b in range(2)]
    orders.append(Schedule(store, 1, 600).block(0).flat_rows)
    for order in orders:
        assert np.corrcoef(order, np.arange(600))[0, 1] < 0.2
    assert not np.array_equal(orders[0], orders[1])


def test_a_growing_store_gives_the_blocks_of_the_finished_one(tmp_path):
    data = data_of(write_jsonl(tmp_path / "corpus.jsonl", made_up_documents(3000)))
    writer = TokenWriter(tmp_path / "growing", data, BYTES)
    writer.ensure(1)
    schedule = Schedule(TokenStore(tmp_path / "growing"), 0, 3000)  # a reader of its own
    whole = Schedule(TokenWriter(tmp_path / "whole", data, BYTES).ensure(ALL), 0, 3000)
    for n_blocks in range(1, 45):
        writer.ensure(rows_to_store(n_blocks, 3000, 16))
        assert schedule.blocks_available >= n_blocks
        assert same(schedule.block(n_blocks - 1), whole.block(n_blocks - 1))
    with pytest.raises(AssertionError, match="not available"):
        Schedule(TokenStore(tmp_path / "growing"), 0, 3000).block(10**6)
    writer.ensure(ALL)
    assert schedule.blocks_available == math.inf
    assert same(schedule.block(200), whole.block(200))


def test_a_corpus_below_one_batch_is_an_error_and_one_below_a_block_repeats(store):
    schedule = Schedule(store, 0, 3 * store.train_rows)
    schedule.check_enough(store.train_rows)
    with pytest.raises(DataError, match=rf"leaves {store.train_rows} rows.*train.batch_tokens"):
        schedule.check_enough(store.train_rows + 1)
    assert schedule.block(1).pass_index == 3
    assert len(schedule.block(0).flat_rows) == 3 * store.train_rows


def test_a_permutation_is_the_same_on_every_machine():
    assert permutation(8, 0, "contexts", 0, 0).tolist() == [7, 3, 2, 4, 0, 1, 5, 6]
    assert sorted(permutation(1000, 1, "rows", 2)) == list(range(1000))


def test_a_block_deep_in_a_long_corpus_is_found_at_once(tmp_path):
    data = data_of("python-docs", context_tokens=128, shuffle_tokens=100_000)
    schedule = Schedule(TokenWriter(tmp_path / "tokens", data, BYTES).ensure(ALL), 0, 8192)
    started = time.perf_counter()
    schedule.block(12_000)  # 100M rows in
    assert time.perf_counter() - started < 5
    started = time.perf_counter()
    schedule.block(11_999)
    assert time.perf_counter() - started < 0.5
