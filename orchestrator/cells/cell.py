"""A cell: one producer and the transcoders that it feeds, in one process.

    load(): model, rehearsal, checkpoints
    run():  for each block: one forward, then every step of every transcoder
            -> calibrate -> test -> save

`load()` needs no tokens: those may still be being written. `run()` yields a status after every
step, and whoever iterates it may stop between two. The same class runs in this process and inside
an actor.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch

from mtc_core.capture import Capture, make_capture
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.errors import ConfigError, ModelError
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.producer import ActivationProducer, Activations
from mtc_core.tokens.packing import Contexts
from mtc_core.tokens.schedule import Schedule
from mtc_core.tokens.token_store import TokenStore
from mtc_core.workspace import Workspace
from orchestrator.cells.kept_memory import keep_freed_memory
from orchestrator.cells.memory_errors import memory_errors
from orchestrator.cells.rehearsal import rehearse
from orchestrator.cells.status import CellStatus, Phase
from orchestrator.cells.transcoder_run import TranscoderRun
from orchestrator.run_folder.init_from import Start
from orchestrator.run_folder.transcoder_folder import TranscoderFolder

_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellJob:
    """What a cell is to do; picklable."""

    name: str
    specs: tuple[TranscoderSpec, ...]
    train: TrainConfig
    seed: int
    model_name: str  # as the manifest has it; in `model` a local folder's path is absolute
    model: dict[str, Any]  # keyword arguments of load_model
    model_commit: str  # the weights that the run began with
    shape: ModelShape  # what the plan was made for
    provider: Literal["hf", "bridge"]
    forward_contexts: int
    context_tokens: int
    tokens: Path  # absolute, as all paths here: the process may stand elsewhere
    transcoders: Path
    witness: Path  # a file that only this invocation wrote: who sees it sees the run folder
    device: str
    memory_bytes: int  # what the plan expects it to take
    threads: int
    checkpoint_s: float
    checkpoint_keep: int
    provenance: dict[str, Any]  # goes into every config.json
    starts: dict[str, Start]  # by id, the weights that a transcoder starts from, if not random


class Cell:
    """Trains the transcoders of one job. `load()`, then `run()`, at last `close()`."""

    def __init__(self, job: CellJob) -> None:
        self.job = job
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
        self._loaded: LoadedModel | None = None
        self._producer: ActivationProducer | None = None
        self._checkpointed_at = time.monotonic()

    def load(self) -> CellStatus:
        """Load the model, try one forward and one step of each transcoder, read checkpoints.

        Raises ModelError, SiteError and the like for what the model cannot give, and ConfigError on
        a machine that lacks the run's files."""
        torch.set_num_threads(self.job.threads)
        keep_freed_memory()
        with self._timed("load"), memory_errors(self.job.name, self.job.device):
            self._see_files()
            for run in self.runs:
                run.claim()
            self._loaded = self._load_model()
            self._rehearse(self._loaded)
            for run in self.runs:
                run.resume()
        return self.status("loading")

    def run(self) -> Iterator[CellStatus]:
        """Train to the end, one status a step. Finished transcoders are left as they are."""
        assert self._loaded is not None, "load() comes first"
        store = TokenStore(self.job.tokens)
        self._producer = producer = ActivationProducer(
            self._capture(self._loaded),
            Schedule(store, self.job.seed, self.job.train.block_rows),
            forward_contexts=self.job.forward_contexts,
            device=self.job.device,
        )
        with memory_errors(self.job.name, self.job.device):
            yield from self._train(producer)
            yield from self._finish(store, producer)
        yield self.status("done")

    def close(self) -> None:
        """Let other processes train these transcoders."""
        for run in self.runs:
            run.release()

    def waited(self, seconds: float) -> None:
        """Count time in which nobody asked this cell to go on."""
        self.seconds["wait"] = self.seconds.get("wait", 0.0) + seconds

    def checkpoint(self) -> None:
        """Save the state of every transcoder now."""
        with self._timed("checkpoint"):
            for run in self.runs:
                run.checkpoint()
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
            forwards=self._forwards(),
            resident_bytes=psutil.Process().memory_info().rss,
            messages=self._new_messages(),
        )

    def _see_files(self) -> None:
        """The driver has them; this process may be on another machine."""
        model = Path(self.job.model["name"])
        needed = [self.job.witness, *([model] * model.is_absolute())]
        for path in needed:
            if not path.exists():
                raise ConfigError(
                    f"{self.job.name} runs on {platform.node()}, which has no {path}: every node "
                    "needs the run folder and the model under the same paths; put both on a shared "
                    "file system (--root, model.name), or run on one machine, without --address"
                )

    def _load_model(self) -> LoadedModel:
        job = self.job
        loaded = load_model(**job.model, device=job.device)
        if loaded.commit != job.model_commit:
            raise ModelError(
                f"the weights of {job.model_name} have changed since the run began (were "
                f"{job.model_commit}, now {loaded.commit}); restore them, or start a run with "
                "another name"
            )
        found, planned = ((shape.n_layers, shape.d_model) for shape in (loaded.shape, job.shape))
        if found != planned:
            raise ModelError(
                f"{job.model_name} has {found[0]} layers of width {found[1]}, but was planned "
                f"with {planned[0]} of width {planned[1]}; its entry in orchestrator/shapes.json "
                "is wrong"
            )
        return loaded

    def _rehearse(self, loaded: LoadedModel) -> None:
        capture = self._capture(loaded)
        runs = [run for run in self.runs if not run.ended]
        rehearse(capture, runs, loaded.shape.vocab_size, self.job.context_tokens)
        capture.close()

    def _capture(self, loaded: LoadedModel) -> Capture:
        sites = [site for spec in self.job.specs for site in (spec.source, spec.target)]
        return make_capture(loaded, sites, provider=self.job.provider)

    def _train(self, producer: ActivationProducer) -> Iterator[CellStatus]:
        train = self.job.train
        self.step = min((run.step_index for run in self._live), default=train.steps)
        while self.step < train.steps and self._live:
            # A block takes long: a status after each pass, so that signals need not wait for it.
            for _ in self._each_timed("forward", producer.forward_block(self._block_index)):
                yield self.status("training")
            block = producer.activations
            if self.step == 0:
                for run in self.runs:
                    run.begin(block)
            for j in range(self.step % train.block_batches, train.block_batches):
                if self.step == train.steps:
                    break
                with self._timed("train"):
                    rows = slice(j * train.batch_tokens, (j + 1) * train.batch_tokens)
                    for run in self.runs:
                        run.step(self.step, block, rows)
                self.step += 1
                self.rows_trained += train.batch_tokens
                if time.monotonic() - self._checkpointed_at >= self.job.checkpoint_s:
                    self.checkpoint()
                yield self.status("training")
        self.checkpoint()

    def _finish(self, store: TokenStore, producer: ActivationProducer) -> Iterator[CellStatus]:
        """Calibrate on one half of the holdout, measure on the other, save."""
        runs = [run for run in self._live if not run.finished]
        if not runs:
            return
        assert self._loaded is not None
        provenance = {"model": _describe(self.job, self._loaded), **self.job.provenance}
        calibration, test = store.holdout("calibration"), store.holdout("test")
        for run in runs:
            run.prepare_held_out(int(calibration.rows_CT.sum()))
        with self._timed("calibrate"):
            for rows in _holdout_rows(producer, calibration):
                for run in runs:
                    run.calibrate(rows)
                yield self.status("calibrating")
        for run in runs:
            assert run.held_out is not None
            run.held_out.settle()
        with self._timed("test"):
            for rows in _holdout_rows(producer, test):
                for run in runs:
                    run.test(rows)
                yield self.status("testing")
            for run in runs:
                run.save_final(provenance)

    @property
    def _block_index(self) -> int:
        return self.step // self.job.train.block_batches

    @property
    def _live(self) -> list[TranscoderRun]:
        return [run for run in self.runs if run.live]

    def _new_messages(self) -> tuple[str, ...]:
        messages = tuple(message for run in self.runs for message in run.messages)
        for run in self.runs:
            run.messages.clear()
        return messages

    def _forwards(self) -> dict[str, int]:
        if self._producer is None:
            return {}
        return {
            "passes": self._producer.forwards,
            "tokens": self._producer.tokens_forwarded,
            **asdict(self._producer.capture.counts),
        }

    def _each_timed(self, stage: str, parts: Iterator[None]) -> Iterator[None]:
        """The same parts, with the time spent in them (and not between them) counted."""
        while True:
            with self._timed(stage):
                part = next(parts, _END)
            if part is _END:
                return
            yield

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began


def _holdout_rows(producer: ActivationProducer, contexts: Contexts) -> Iterator[Activations]:
    # Copies: the store's arrays are read-only maps of files, which torch cannot take.
    ids_CT = torch.from_numpy(contexts.ids_CT.astype(np.int64))
    return producer.rows(ids_CT, torch.from_numpy(contexts.rows_CT.astype(np.bool_)))


def _describe(job: CellJob, loaded: LoadedModel) -> dict[str, Any]:
    """Whose weights the transcoders belong to, for config.json."""
    return {
        "name": job.model_name,
        "commit": loaded.commit,
        "description": loaded.description,
        "dtype": job.model["dtype"],
        "provider": job.provider,
    }
