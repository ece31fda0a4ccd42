"""A cell's feed when a producer is lost and replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mtc_core.config import TrainConfig
from orchestrator.cells.job import Fed, Text
from orchestrator.cells.portions import Portions
from orchestrator.exchange import exchange_feed
from orchestrator.exchange.exchange_feed import ExchangeFeed
from orchestrator.exchange.line import LineLost

PORTIONS = Portions(
    batches=8, block_batches=4, calibration_passes=1, test_passes=1, calibration_rows=2
)


class FakeLine:
    """Gives its number as rows, or is lost."""

    def __init__(self, lost: bool = False) -> None:
        self.lost, self.asked, self.left = lost, [], 0

    def ask(self, portion, cursor):
        self.asked.append(portion)

    def take(self, portion):
        if self.lost:
            raise LineLost
        return {"0.resid": torch.tensor([portion])}

    def leave(self):
        self.left += 1


def feed_of(producers):
    train = TrainConfig(tokens=16, batch_tokens=2, block_batches=4)
    text = Text(tokens=Path(), seed=0, train=train, context_tokens=2, forward_contexts=1)
    feed = ExchangeFeed(Fed(producers=producers, prefetch_steps=2, widths={}, text=text), "cpu")
    feed._portions = PORTIONS
    return feed


@pytest.fixture
def feed():
    return feed_of(1)


def test_a_producer_that_has_nothing_more_for_a_cell_is_left_at_once():
    """It waits for all whom it expects: others may need it meanwhile."""
    feed, lines, last = feed_of(3), [FakeLine() for _ in range(3)], PORTIONS.end - 1
    for producer, line in enumerate(lines):
        feed.connect(producer, line)
    owner = PORTIONS.lot_of(last) % 3
    for _ in range(2):
        assert next(feed.fetch(last), "there") == "there"
    assert [line.left for line in lines] == [int(producer != owner) for producer in range(3)]
    feed.connect((owner + 1) % 3, again := FakeLine())  # that one was replaced
    assert next(feed.fetch(last), "there") == "there"
    assert again.left == 1


def test_without_a_producer_a_cell_rests_and_a_new_one_is_asked_anew(feed, monkeypatch):
    slept = []
    monkeypatch.setattr(exchange_feed.time, "sleep", slept.append)
    lost, new = FakeLine(lost=True), FakeLine()
    feed.connect(0, lost)
    fetching = feed.fetch(5)
    for _ in range(4):
        next(fetching)
    assert lost.asked == [5, 6] and slept == 3 * [exchange_feed.ABSENT_S]
    feed.connect(0, new)
    assert next(fetching, "there") == "there"
    assert new.asked == [5, 6] and feed.rows["0.resid"].tolist() == [5]
