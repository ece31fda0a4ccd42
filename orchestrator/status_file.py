"""`status.json`: how a run stands, for `status` and for other processes. Replaced every second.

A view, not a fact: nothing reads it to continue a run.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from mtc_core.atomic import write_json_atomic
from orchestrator.status import CellStatus
from orchestrator.view import tokens_per_second

NAME = "status.json"
SECONDS = 1.0


class StatusFile:
    """Writes the state of a run while its driver lives."""

    def __init__(self, run: Path, steps: int) -> None:
        self._path = run / NAME
        self._written_at = 0.0
        self._content: dict[str, Any] = {
            "state": "running",
            "steps": steps,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
        }

    def update(self, status: CellStatus) -> None:
        self._content |= {
            "phase": status.phase,
            "step": status.step,
            "tokens_per_second": tokens_per_second(status),
            "rows_trained": status.rows_trained,
            "seconds": status.seconds,
            "forwards": status.forwards,
            "transcoders": [row.to_dict() for row in status.transcoders],
        }
        if time.monotonic() - self._written_at >= SECONDS:
            self._write()

    def close(self, state: str) -> None:
        """Record how it ended; only the first call counts."""
        if self._content["state"] == "running":
            self._content["state"] = state
            self._write()

    def _write(self) -> None:
        write_json_atomic(self._path, {**self._content, "updated": time.time()})
        self._written_at = time.monotonic()


def read_status(run: Path) -> dict[str, Any] | None:
    """What `status.json` says; a driver that died without a word is `killed`. None if absent."""
    try:
        content = json.loads((run / NAME).read_text())
    except FileNotFoundError:
        return None
    if content["state"] == "running" and not _alive(content):
        content["state"] = "killed"
    return content


def _alive(content: dict[str, Any]) -> bool:
    if content["host"] != socket.gethostname():
        return time.time() - content["updated"] < 60
    try:
        return psutil.Process(content["pid"]).create_time() == content["process_started"]
    except psutil.NoSuchProcess:
        return False
