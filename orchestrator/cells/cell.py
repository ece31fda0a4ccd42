"""A cell: the transcoders of one process, and the feed that their rows come from.

    load(): feed, rehearsal, checkpoints
    run():  for each step: its rows, then the step of every transcoder
            -> calibrate -> test -> save

`load()` needs no tokens: those may still be being written. `run()` yields a status after every
step, and while it waits for rows; whoever iterates it may stop between two. The same class runs in
this process and inside an actor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import torch

from mtc_core.kept_memory import hand_freed_memory_back, keep_freed_memory
from mtc_core.workspace import Workspace
from orchestrator.cells.feed import Feed, OwnFeed
from orchestrator.cells.job import CellJob, Forward, see_files
from orchestrator.cells.memory_errors import memory_errors
from orchestrator.cells.portions import Portions
from orchestrator.cells.rehearsal import rehearse
from orchestrator.cells.status import CellStatus, Phase
from orchestrator.cells.transcoder_run import TranscoderRun
from orchestrator.run_folder.transcoder_folder import TranscoderFolder

WRITERS = 2  # of checkpoints at a time: each holds a copy of its state
_END = object()


class Cell:
    """Trains the transcoders of one job. `load()`, then `run()`, at last `close()`."""

    def __init__(self, job: CellJob, feed: Feed | None = None) -> None:
        """feed: needed where the job says that the cell is fed by producers."""
        self.job = job
        if feed is None:
            assert isinstance(job.feed, Forward)
            feed = OwnFeed(job.feed, job.device)
        self.feed = feed
        self.step = 0
        self.rows_trained = 0
        self.seconds: dict[str, float] = {}
        workspace = Workspace()
        self.runs = [
            TranscoderRun(
                spec,
                job.train,
                TranscoderFolder(job.transcoders / spec.id),
                job.device,
                job.checkpoint_keep,
                workspace,
                job.starts.get(spec.id),
            )
            for spec in job.specs
        ]
        self._checkpointed_at = time.monotonic()

    def load(self) -> CellStatus:
        """Prepare the feed, try one step of each transcoder, read checkpoints.

        Raises ModelError, SiteError and the like for what the model cannot give, and ConfigError on
        a machine that lacks the run's files."""
        job = self.job
        torch.set_num_threads(job.threads)
        keep_freed_memory()
        with self._timed("load"), memory_errors(job.name, job.device):
            see_files(job, job.feed.model["name"] if isinstance(job.feed, Forward) else "")
            for run in self.runs:
                run.claim()
            rehearse([run for run in self.runs if not run.ended], self.feed.load())
            for run in self.runs:
                run.resume()
        hand_freed_memory_back()  # of unpacking a model, and of the rehearsal
        self.step = self._first_step
        return self.status("loading")

    def run(self) -> Iterator[CellStatus]:
        """Train to the end, one status a step. Finished transcoders are left as they are."""
        portions = self.feed.begin()
        with memory_errors(self.job.name, self.job.device):
            yield from self._train()
            yield from self._finish(portions)
        self.feed.end()
        yield self.status("done")

    def close(self) -> None:
        """Let other processes train these transcoders."""
        for run in self.runs:
            run.release()

    def waited(self, seconds: float) -> None:
        """Count time in which nobody asked this cell to go on."""
        self.seconds["wait"] = self.seconds.get("wait", 0.0) + seconds

    def checkpoint(self) -> None:
        """Save the state of every transcoder now, some side by side: disks and digests overlap.

        What one raises is raised when the others are done."""
        with self._timed("checkpoint"), ThreadPoolExecutor(WRITERS) as writers:
            written = [writers.submit(run.checkpoint) for run in self.runs]
        for one in written:
            one.result()
        hand_freed_memory_back()
        self._checkpointed_at = time.monotonic()

    def status(self, phase: Phase) -> CellStatus:
        return CellStatus(
            cell=self.job.name,
            phase=phase,
            step=self.step,
            batch_tokens=self.job.train.batch_tokens,
            transcoders=tuple(run.status() for run in self.runs),
            rows_trained=self.rows_trained,
            seconds=dict(self.seconds),
            forwards=self.feed.forwards,
            resident_bytes=psutil.Process().memory_info().rss,
            messages=self._new_messages(),
        )

    def _train(self) -> Iterator[CellStatus]:
        train = self.job.train
        self.step = self._first_step
        while self.step < train.steps and self._live:
            # Rows take long: a status again and again, so that signals need not wait for them.
            yield from self._fetch(self.step, "training", self.feed.stage)
            if self.step == 0:
                for run in self.runs:
                    run.begin(self.feed.block)
                hand_freed_memory_back()  # of measuring a whole block in float64
            with self._timed("train"):
                for run in self.runs:
                    run.step(self.step, self.feed.rows)
            self.step += 1
            self.rows_trained += train.batch_tokens
            if time.monotonic() - self._checkpointed_at >= self.job.checkpoint_s:
                self.checkpoint()
            yield self.status("training")
        self.checkpoint()

    def _finish(self, portions: Portions) -> Iterator[CellStatus]:
        """Calibrate on one half of the holdout, measure on the other, save."""
        runs = [run for run in self._live if not run.finished]
        if not runs:
            return
        with self._timed("calibrate"):
            for run in runs:
                run.prepare_held_out(portions.calibration_rows)
            hand_freed_memory_back()  # of what only training needed
        for portion in portions.calibration:
            yield from self._fetch(portion, "calibrating", "calibrate")
            with self._timed("calibrate"):
                for run in runs:
                    run.calibrate(self.feed.rows)
        for run in runs:
            run.settle()
        for portion in portions.test:
            yield from self._fetch(portion, "testing", "test")
            with self._timed("test"):
                for run in runs:
                    run.test(self.feed.rows)
        with self._timed("test"):
            for run in runs:
                run.save_final(self.job.provenance)

    def _fetch(self, portion: int, phase: Phase, stage: str) -> Iterator[CellStatus]:
        """Have the feed get a portion; the time spent in it (and not between) is counted."""
        parts = self.feed.fetch(portion)
        while True:
            with self._timed(stage):
                part = next(parts, _END)
            if part is _END:
                return
            yield self.status(phase)

    @property
    def _first_step(self) -> int:
        return min((run.step_index for run in self._live), default=self.job.train.steps)

    @property
    def _live(self) -> list[TranscoderRun]:
        return [run for run in self.runs if run.live]

    def _new_messages(self) -> tuple[str, ...]:
        messages = tuple(message for run in self.runs for message in run.messages)
        for run in self.runs:
            run.messages.clear()
        return messages

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began
