"""`status.json`: how a run stands, for `status` and for other processes. Replaced every second.

A view, not a fact: nothing reads it to continue a run, and failing to write it stops none.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.run_folder.lock import NAME as LOCK
from orchestrator.run_folder.lock import SILENT_S, is_running, read_holder, started
from orchestrator.snapshot import Snapshot

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
            **_shown(Snapshot(steps)),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": started(os.getpid()),
        }
        self._write()

    def update(self, snapshot: Snapshot) -> None:
        new = snapshot.phase != self._content["phase"]
        if new or time.monotonic() - self._written_at >= SECONDS:
            self._content |= _shown(snapshot)
            self._write()

    def close(self, state: str, snapshot: Snapshot) -> None:
        """Record how it ended; only the first call counts."""
        if self._content["state"] == "running":
            self._content |= {**_shown(snapshot), "state": state}
            self._write()

    def _write(self) -> None:
        try:
            _replace(self._path, self._content)
        except OSError as error:
            if not self._complained:
                _log.warning("%s cannot be written: %s", self._path, error)
            self._complained = True
        self._written_at = time.monotonic()


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    """Without seconds by process and stage, which are of interest over time: see progress.py."""
    return {name: value for name, value in snapshot.to_dict().items() if name != "stages"}


def read_status(run: Path, silent_s: float | None = None) -> dict[str, Any] | None:
    """What `status.json` says; a driver that died without a word is `killed`. None if there is
    none, or if a power cut has left it damaged. silent_s: how long a watcher has seen no change:
    better than clocks, for that of a driver on another host may be wrong."""
    try:
        content = json.loads((run / NAME).read_text(encoding="utf-8"))
        rows = all(isinstance(row, dict) for row in content.get("transcoders", ()))
        if not (rows and isinstance(content["state"], str)):
            return None
        if content["state"] == "running" and not _alive(run, content, silent_s):
            content["state"] = "killed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return content


def mark_done(run: Path) -> None:
    """By a driver that finds nothing left to do in a run whose last one was interrupted, or killed,
    after training."""
    content = read_status(run)
    if content and content["state"] != "done":
        with suppress(OSError):  # somebody else's run
            done = {"state": "done", "phase": "done", "doing": "", "step": content.get("steps", 0)}
            _replace(run / NAME, {**content, **done})


def _replace(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{NAME}.tmp")
    temporary.write_text(json.dumps({**content, "updated": time.time()}, indent=2), "utf-8")
    os.replace(temporary, path)


def _alive(run: Path, content: dict[str, Any], silent_s: float | None) -> bool:
    if content["host"] != socket.gethostname():
        silent = _since(content["updated"]) if silent_s is None else silent_s
        return min(silent, _since_heartbeat(run)) < SILENT_S
    pid, began = content["pid"], content["process_started"]
    # A container may have our host's name, and processes that we do not see: the lock knows.
    return is_running(pid, began) or _holds(run, pid, began)


def _holds(run: Path, pid: int, began: float) -> bool:
    holder = read_holder(run)
    ours = holder is not None and (holder.pid, holder.process_started) == (pid, began)
    return holder is not None and ours and holder.lives(_since_heartbeat(run))


def _since_heartbeat(run: Path) -> float:
    """Seconds. While a model loads or a checkpoint is written, the lock alone says that the driver
    lives."""
    try:
        return _since((run / LOCK).stat().st_mtime)
    except OSError:
        return math.inf


def _since(moment: float) -> float:
    """Seconds; of a clock that is wrong it tells nothing."""
    silent = time.time() - moment
    return silent if silent > -SILENT_S else math.inf
