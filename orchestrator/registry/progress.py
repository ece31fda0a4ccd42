"""How fast an invocation went, over time: `invocations/NUMBER.progress.jsonl`.

A line now and then while it trains, each with what had been done by then. Lines come ever more
rarely, so that a run of two weeks leaves some thousands of them. A view, not a fact: nothing
continues from it, and failing to write it stops nothing.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.snapshot import Snapshot

SECONDS = 1.0
SHARE = 1 / 500  # of the time that an invocation has lasted
_log = logging.getLogger("mtc")


class ProgressFile:
    """Written by the driver of one invocation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = self._written_at = time.monotonic()
        self._complained = False
        self._last: tuple[str, int] = ("", -1)

    def update(self, snapshot: Snapshot) -> None:
        """Add a line, if the last one is a while ago, or the phase is another."""
        now = time.monotonic()
        phase, step = self._last
        pause = max(SECONDS, (now - self._began) * SHARE)
        if now - self._written_at < pause and snapshot.phase == phase:
            return
        if (snapshot.phase, snapshot.step) != (phase, step):
            self._written_at, self._last = now, (snapshot.phase, snapshot.step)
            self._write(_line(snapshot))

    def _write(self, line: dict[str, Any]) -> None:
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            if not self._complained:
                _log.warning("%s cannot be written: %s", self._path, error)
            self._complained = True


def progress_path(run: Path, number: int) -> Path:
    return run / "invocations" / f"{number:04d}.progress.jsonl"


def read_progress(run: Path, number: int) -> list[dict[str, Any]]:
    """The lines of one invocation; none of one that left none. Half a line, as a killed driver
    leaves it, is passed over. Raises OSError."""
    try:
        lines = progress_path(run, number).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            parsed = json.loads(line)
        except ValueError:
            continue
        if isinstance(parsed, dict):
            found.append(parsed)
    return found


def _line(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "at": time.time(),
        "phase": snapshot.phase,
        "step": snapshot.step,
        "rows_trained": snapshot.rows_trained,
        "passes": snapshot.passes,
        "stages": {name: _rounded(stages) for name, stages in snapshot.stages.items()},
        "resident_bytes": dict(snapshot.resident_bytes),
    }


def _rounded(stages: Any) -> dict[str, float]:
    return {stage: round(seconds, 3) for stage, seconds in stages.items()}
