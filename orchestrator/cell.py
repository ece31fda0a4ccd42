"""A cell: one producer and the transcoders that it feeds, in one process.

    load -> resume -> for each block: one forward, then every step of every transcoder
         -> calibrate -> test -> save

`run()` yields a status after every step, and whoever iterates it may stop between two. The same
class runs in this process and inside an actor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mtc_core.capture import make_capture
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.errors import ModelError
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.producer import ActivationProducer, Activations
from mtc_core.tokens.packing import Contexts
from mtc_core.tokens.schedule import Schedule
from mtc_core.tokens.token_store import TokenStore
from mtc_core.workspace import Workspace
from orchestrator.status import CellStatus, Phase
from orchestrator.transcoder_folder import TranscoderFolder
from orchestrator.transcoder_run import TranscoderRun

_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class CellJob:
    """What a cell is to do; picklable."""

    name: str
    specs: tuple[TranscoderSpec, ...]
    train: TrainConfig
    seed: int
    model: dict[str, Any]  # keyword arguments of load_model
    model_commit: str  # the weights that the run began with
    shape: ModelShape  # what the plan was made for
    provider: Literal["hf", "bridge"]
    forward_contexts: int
    tokens: Path
    transcoders: Path
    device: str
    threads: int
    checkpoint_s: float
    checkpoint_keep: int
    provenance: dict[str, Any]  # goes into every config.json


class Cell:
    """Trains the transcoders of one job."""

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
            )
            for spec in job.specs
        ]
        self._producer: ActivationProducer | None = None
        self._provenance: dict[str, Any] = {}
        self._checkpointed_at = time.monotonic()

    def run(self) -> Iterator[CellStatus]:
        """Train to the end, one status a step. Finished transcoders are left as they are."""
        yield self.status("loading")
        store, producer = self._load()
        yield from self._train(producer)
        yield from self._finish(store, producer)
        yield self.status("done")

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
            messages=self._new_messages(),
        )

    def _load(self) -> tuple[TokenStore, ActivationProducer]:
        job = self.job
        torch.set_num_threads(job.threads)
        with self._timed("load"):
            for run in self.runs:
                run.resume()
            store = TokenStore(job.tokens)
            loaded = load_model(**job.model, device=job.device)
            if loaded.commit != job.model_commit:
                raise ModelError(
                    f"the weights of {job.model['name']} have changed since the run began (were "
                    f"{job.model_commit}, now {loaded.commit}); restore them, or start a run with "
                    "another name"
                )
            if (loaded.shape.n_layers, loaded.shape.d_model) != (
                job.shape.n_layers,
                job.shape.d_model,
            ):
                raise ModelError(
                    f"{job.model['name']} has {loaded.shape.n_layers} layers of width "
                    f"{loaded.shape.d_model}, but was planned with {job.shape.n_layers} of width "
                    f"{job.shape.d_model}; its entry in orchestrator/shapes.json is wrong"
                )
            self._provenance = {"model": _describe(job, loaded), **job.provenance}
            sites = [site for spec in job.specs for site in (spec.source, spec.target)]
            self._producer = ActivationProducer(
                make_capture(loaded, sites, provider=job.provider),
                Schedule(store, job.seed, job.train.block_rows),
                forward_contexts=job.forward_contexts,
                device=job.device,
            )
        return store, self._producer

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
                run.save_final(self._provenance)

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
        "name": job.model["name"],
        "commit": loaded.commit,
        "description": loaded.description,
        "dtype": job.model["dtype"],
        "provider": job.provider,
    }
