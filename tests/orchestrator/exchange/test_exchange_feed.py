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
        self.lost, self.asked = lost, []

    def ask(self, portion, cursor):
        self.asked.append(portion)

    def take(self, portion):
        if self.lost:
            raise LineLost
        return {"0.resid": torch.tensor([portion])}

    def leave(self):
        """Nobody to tell."""


@pytest.fixture
def feed():
    train = TrainConfig(tokens=16, batch_tokens=2, block_batches=4)
    text = Text(tokens=Path(), seed=0, train=train, context_tokens=2, forward_contexts=1)
    feed = ExchangeFeed(Fed(producers=1, prefetch_steps=2, widths={}, text=text), "cpu")
    feed._portions = PORTIONS
    return feed


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
