"""A run folder as training would leave it, and what W&B recorded of it."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

A, B = "L00.resid_mid-L00.mlp_out-0a1b2c3d", "L01.resid_mid-L01.mlp_out-4e5f6071"
HEADER, BLOCK = 7, 32768


def line(step: int) -> dict[str, Any]:
    """A line of metrics.jsonl, different at every step."""
    return {
        "step": step,
        "tokens": 256 * (step + 1),
        "loss": 1 / (step + 1),
        "fvu": 0.25,
        "fvu_by_prefix": [0.75, 0.5, 0.25],
        "l2_by_prefix": [12.0, 8.0, 4.0],
        "l0": 3.5,
        "dead": 7,
        "dead_share": 0.125,
        "aux": 0.5,
        "extreme_row_share": 0.01,
        "threshold": 0.2,
        "lr": 1e-3,
    }


class TrackedRun:
    """Writes what the driver and the cells of a run of two transcoders write."""

    def __init__(self, root: Path) -> None:
        self.path = root / "tracked"
        for id in (A, B):
            self._of(id).mkdir(parents=True)
        specs = {id: {"k": 32, "aux_weight": 0.25} for id in (A, B)}
        self.config = {"name": "tracked", "train": {"tokens": 100_000}, "specs": specs}
        (self.path / "resolved.json").write_text(json.dumps(self.config))

    def _of(self, id: str) -> Path:
        return self.path / "transcoders" / id

    def metrics(self, id: str) -> Path:
        return self._of(id) / "metrics.jsonl"

    def write(self, id: str, *steps: int, torn: bool = False) -> None:
        text = "".join(json.dumps(line(step)) + "\n" for step in steps)
        with open(self.metrics(id), "a") as file:
            file.write(text[:-20] if torn else text)

    def finish(self, id: str) -> None:
        rows = {"fvu": 0.3, "fvu_by_prefix": [0.6, 0.3], "fvu_ridge": 0.5, "l0": 4.25}
        shares = {"dead_share": 0.1, "extreme_row_share": 0.02}
        evaluation = {"id": id, "ordinary": rows, "all": {**rows, "fvu": 0.35}, **shares}
        (self._of(id) / "evaluation.json").write_text(json.dumps(evaluation))
        (self._of(id) / "final").mkdir()

    def tracking(self) -> dict[str, Any]:
        return json.loads((self.path / "tracking.json").read_text())

    def recorded(self) -> list[Recorded]:
        """What each invocation wrote, oldest first."""
        files = self.path.glob("wandb/*run-*/*.wandb")
        return [Recorded(path) for path in sorted(files, key=lambda path: path.stat().st_ctime)]


class Recorded:
    """The content of a .wandb file. wandb 0.31 has no reader of its own in Python any more; its
    messages it has."""

    def __init__(self, path: Path) -> None:
        from wandb.proto import wandb_internal_pb2

        self.path = path
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.axes: dict[str, str] = {}
        self.run: Any = None
        self.exit_code: int | None = None
        for data in _records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            self._take(record)

    def _take(self, record: Any) -> None:
        match record.WhichOneof("record_type"):
            case "run":
                self.run = record.run
                self.config = _values(record.run.config.update)
            case "history":
                self.history.append(_values(record.history.item))
            case "summary":
                self.summary |= _values(record.summary.update)
            case "metric" if record.metric.glob_name:
                self.axes[record.metric.glob_name] = record.metric.step_metric
            case "exit":
                self.exit_code = record.exit.exit_code


def _values(items: Any) -> dict[str, Any]:
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def _records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format: blocks of chunks, 1 whole, 2 first, 3 middle, 4 last of a record."""
    assert data[:4] == b":W&B"
    position, record = HEADER, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def points(history: list[dict[str, Any]], id: str) -> dict[int, float]:
    """Step -> loss of one transcoder, out of history rows; equal points may come twice."""
    found: dict[int, float] = {}
    for row in history:
        if f"{id}/loss" in row:
            assert found.setdefault(row["step"], row[f"{id}/loss"]) == row[f"{id}/loss"]
    return found


def expected(*steps: int) -> dict[int, float]:
    return {step: 1 / (step + 1) for step in steps}


def wait_until(true: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
