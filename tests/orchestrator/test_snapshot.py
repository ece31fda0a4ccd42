"""A snapshot crosses a file: whoever reads it sees what the driver saw."""

from __future__ import annotations

import json

from orchestrator.cells.status import CellStatus, TranscoderStatus
from orchestrator.snapshot import Snapshot
from orchestrator.suite import Suite

ROW = TranscoderStatus("L00", "training", 3, 2, 0.5, (0.7, 0.5), 31.9, 0.01)
CELL = CellStatus(
    "trainer-0", "training", 3, 256, (ROW,), 768, {"train": 2.0, "load": 1.0}, {"passes": 4}, 10
)


def test_it_is_the_same_after_json() -> None:
    now = Snapshot.of(Suite(40, [CELL]), "in words")
    read = Snapshot.from_dict(json.loads(json.dumps(now.to_dict())))
    assert read.to_dict() == json.loads(json.dumps(now.to_dict()))
    assert (read.step, read.passes, read.tokens_per_second) == (3, 4, 384.0)
    assert read.transcoders[0].fvu == 0.5 and read.doing == "in words"


def test_that_of_another_version_is_read_as_far_as_it_goes() -> None:
    plain = {"step": 5, "steps": 9, "transcoders": [{"id": "L00", "state": "done", "new": 1}]}
    read = Snapshot.from_dict({**plain, "something": "new"})
    assert (read.step, read.steps, read.passes, read.shares) == (5, 9, 0, [])
    assert read.transcoders == (TranscoderStatus("L00", "done"),)
    assert Snapshot.from_dict({}).steps == 0
