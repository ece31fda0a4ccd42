"""Everyone who is told how a run goes: screen, log, status.json, the index, W&B, and a file of its
progress over time.

The driver tells, they listen; nothing that they do, or fail to do, changes what is trained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from rich.console import Console

from orchestrator.cells.status import ENDED, CellStatus, ProducerStatus, TranscoderStatus
from orchestrator.differing import apart_by_id
from orchestrator.manifest import expand
from orchestrator.prepare import OpenRun, Request
from orchestrator.registry.index import register
from orchestrator.registry.invocations import begin
from orchestrator.registry.progress import ProgressFile, progress_path
from orchestrator.run_folder.log import PhaseLog
from orchestrator.snapshot import TOKENS, Snapshot
from orchestrator.status_file import StatusFile
from orchestrator.suite import Suite
from orchestrator.summary import Ended, cost_lines, memory_line, read_ended
from orchestrator.tracking import make_tracker
from orchestrator.view import make_view

SHOW_S = 0.25
MEASURING = "measuring"  # the phase between training and the end
OUTCOMES = {0: "done", 1: "some failed", 2: "refused", 3: "stopped"}
log = logging.getLogger("mtc")


class Audience:
    """Of one invocation of `run`. Inside `with`, the screen shows how it goes."""

    def __init__(self, run: OpenRun, request: Request, backend: str, console: Console) -> None:
        self._path = run.folder.path
        self._invocation = begin(self._path, _facts(run, request, backend))  # may refuse: first
        self._in_driver = backend == "local"
        producers = [producer.name for producer in run.plan.producers]
        self.suite = Suite(run.plan.schedule.steps, list(_at_the_beginning(run)), producers)
        specs = {spec.id: spec.to_dict() for spec in expand(run.manifest, run.shape.n_layers)}
        self._view = make_view(console, apart_by_id(specs))
        self._file = StatusFile(self._path, self.suite.steps)
        self._progress = ProgressFile(progress_path(self._path, self._invocation.number))
        self._shown, self._shown_at = Snapshot(self.suite.steps), 0.0
        self._phases = PhaseLog()
        self._registered: object = None
        self._first_step_s: float | None = None
        self._cpu_at_first_step = 0.0
        self._driver: dict[str, float] = {}
        self._tracker = make_tracker(run.manifest.tracking, self._path)

    def __enter__(self) -> None:
        self._tracker.start()
        register(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._driver = self._measure_driver()
        self._show(Snapshot.of(self.suite))
        self._view.close()
        if error:
            self._file.close("stopped", self._shown)

    @property
    def witness(self) -> Path:
        """See Invocation.witness."""
        return self._invocation.witness

    def say(self, text: str) -> None:
        """A sentence that stays on the screen and in the log."""
        log.info("%s", text)
        self._view.note(text)

    def warn(self, text: str) -> None:
        log.warning("%s", text)
        self._view.note(text)

    def reading(self, tokens: int, doing: str) -> None:
        """Tokens are being written, while cells load."""
        self._phases.update(TOKENS)
        told = f"{doing}: {tokens:,} tokens" if tokens else doing
        if told != self._shown.doing:
            self._show(replace(Snapshot.of(self.suite, told), phase=TOKENS))

    def hear(self, status: CellStatus | ProducerStatus) -> None:
        """A cell or a producer has said how it stands."""
        self.suite.update(status)
        for message in status.messages:
            self.warn(message)
        trained = isinstance(status, CellStatus) and status.rows_trained
        if trained and self._first_step_s is None:
            self._first_step_s, self._cpu_at_first_step = _process_seconds(), _cpu_seconds()
            log.info("first step after %.1f s", self._first_step_s)
        self._phases.update(self.suite.phase, self.suite.step)
        due = time.monotonic() - self._shown_at >= SHOW_S
        if due or self._shown.phase != self.suite.phase:
            self._show(Snapshot.of(self.suite))
        self._register_what_is_new()

    def measuring(self, doing: str) -> None:
        """Training is over, and the suite is tried out in its model."""
        self._shown = replace(self._shown, phase=MEASURING, doing=doing)
        self._file.update(self._shown)

    def pause(self) -> None:
        """Between two rounds of events: hand on what W&B has to say."""
        for message in self._tracker.poll():
            self.say(message)

    def costs(self) -> list[str]:
        """What this invocation took, in words."""
        cells = None if self._in_driver else self.suite.resident_bytes
        return [*cost_lines(self.suite), memory_line(self._driver, cells)]

    def leave(self, exit_code: int) -> None:
        """The run has ended, and everything is on disk."""
        for message in self._tracker.close(exit_code):
            self.say(message)
        suite = self.suite
        self._file.close("done" if exit_code in (0, 1) else "stopped", Snapshot.of(suite))
        self._invocation.end(
            {
                "exit_code": exit_code,
                "outcome": OUTCOMES.get(exit_code, "interrupted"),
                "step": suite.step,
                "rows_trained": suite.rows_trained,
                "seconds": suite.seconds,
                "forwards": suite.forwards,
                "resident_bytes": suite.resident_bytes,
                "replaced": [status.name for status in suite.replaced],
                "stages": suite.stages,
                "first_step_s": self._first_step_s,
                "driver": self._driver,
            }
        )
        register(self._path)

    def _show(self, snapshot: Snapshot) -> None:
        self._shown, self._shown_at = snapshot, time.monotonic()
        self._view.show(snapshot)
        self._file.update(snapshot)
        self._progress.update(snapshot)

    def _measure_driver(self) -> dict[str, float]:
        """training_cpu_share: of one core, from the first step on; the start is imports."""
        cpu_s, wall_s, share = _cpu_seconds(), _process_seconds(), 0.0
        if self._first_step_s is not None:
            share = (cpu_s - self._cpu_at_first_step) / (wall_s - self._first_step_s)
        return {
            "resident_bytes": psutil.Process().memory_info().rss,
            "cpu_s": cpu_s,
            "wall_s": wall_s,
            "training_cpu_share": share,
        }

    def _register_what_is_new(self) -> None:
        progress = [cell.progress for cell in self.suite.cells.values()]
        if progress != self._registered:
            self._registered = progress
            register(self._path)


def _at_the_beginning(run: OpenRun) -> Iterator[CellStatus]:
    """Every cell before it has said anything; one with nothing left to train never will."""
    steps = run.plan.schedule.steps
    for cell in run.plan.cells:
        rows = [_on_disk(ended, steps) for ended in read_ended(run.folder, cell.transcoders)]
        idle = all(row.state in ENDED for row in rows)
        yield CellStatus(
            cell=cell.name,
            phase="done" if idle else "loading",
            step=steps if idle else 0,
            batch_tokens=run.manifest.train.batch_tokens,
            transcoders=tuple(rows),
        )


def _on_disk(ended: Ended, steps: int) -> TranscoderStatus:
    match ended.state:
        case "done":
            return TranscoderStatus(ended.id, "done", step=steps, saved_step=steps)
        case "failed":
            return TranscoderStatus(ended.id, "failed", reason=ended.failure or "")
    return TranscoderStatus(ended.id, "waiting")


def _facts(run: OpenRun, request: Request, backend: str) -> dict[str, Any]:
    return {
        "manifest": str(request.manifest.absolute()),
        "overrides": list(request.overrides),
        "backend": backend,
        "cells": len(run.plan.cells),
        "cell_names": [cell.name for cell in run.plan.cells],
    }


def _cpu_seconds() -> float:
    cpu = psutil.Process().cpu_times()
    return cpu.user + cpu.system


def _process_seconds() -> float:
    """Since this process was started: imports count."""
    return time.time() - psutil.Process().create_time()
