"""`status.json`: how a run stands, for `status` and for other processes. Replaced every second.

A view, not a fact: nothing reads it to continue a run, and failing to write it stops none.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from orchestrator.pace import pace, waits
from orchestrator.run_folder.lock import SILENT_S, is_running, started
from orchestrator.suite import Suite

NAME = "status.json"
SECONDS = 1.0
_log = logging.getLogger("mtc")


class StatusFile:
    """Writes the state of a run while its driver lives."""

    def __init__(self, run: Path, steps: int) -> None:
        self._path = run / NAME
        self._written_at = 0.0
        self._complained = False
        self._content: dict[str, Any] = {
            "state": "running",
            "phase": "tokens",
            "steps": steps,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": started(os.getpid()),
        }
        self._write()

    def update(self, suite: Suite) -> None:
        if time.monotonic() - self._written_at >= SECONDS:
            self._take(suite)
            self._write()

    def close(self, state: str, suite: Suite) -> None:
        """Record how it ended; only the first call counts."""
        if self._content["state"] == "running":
            self._take(suite)
            self._content["state"] = state
            self._write()

    def _take(self, suite: Suite) -> None:
        self._content |= {
            "phase": suite.phase,
            "step": suite.step,
            "tokens_per_second": suite.tokens_per_second,
            "rows_trained": suite.rows_trained,
            "seconds": suite.seconds,
            "forwards": suite.forwards,
            "resident_bytes": suite.resident_bytes,
            "replaced": len(suite.replaced),
            "waits": waits(suite),
            "pace": pace(suite),
            "transcoders": [row.to_dict() for row in suite.transcoders],
        }

    def _write(self) -> None:
        content = json.dumps({**self._content, "updated": time.time()}, indent=2)
        temporary = self._path.with_name(f".{NAME}.tmp")
        try:
            temporary.write_text(content, encoding="utf-8")
            os.replace(temporary, self._path)
        except OSError as error:
            if not self._complained:
                _log.warning("%s cannot be written: %s", self._path, error)
            self._complained = True
        self._written_at = time.monotonic()


def read_status(run: Path) -> dict[str, Any] | None:
    """What `status.json` says; a driver that died without a word is `killed`. None if there is
    none, or if a power cut has left it damaged."""
    try:
        content = json.loads((run / NAME).read_text(encoding="utf-8"))
        if content["state"] == "running" and not _alive(content):
            content["state"] = "killed"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content


def _alive(content: dict[str, Any]) -> bool:
    if content["host"] != socket.gethostname():
        return time.time() - content["updated"] < SILENT_S
    return is_running(content["pid"], content["process_started"])
