"""The actor that trains: a `Cell` in a process of its own.

The driver asks it to go on for about a second at a time, and has the next request waiting before
the last one is answered, so that it never idles. There is no thread and no queue: what it does
next is what it was asked next.

The driver imports this file, and would wait for torch: only the actor loads what needs it.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from typing import Any

import ray

from mtc_core.errors import ConfigError
from orchestrator.cells.job import CellJob, Fed, Job
from orchestrator.cells.status import CellStatus, Place
from orchestrator.ray_backend.gauges import Gauges

# Set on nodes whose GPUs are mere numbers (`ray start --num-gpus` on a machine without any): to try
# out who shares what.
LOGICAL_GPUS = "MTC_LOGICAL_GPUS"
# Has Ray leave CUDA_VISIBLE_DEVICES alone: some clusters set it for all of their nodes.
UNMASKED = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


class TranscoderTrainer:
    """The transcoders of one cell, with a model of their own or connected to producers."""

    def __init__(self, job: CellJob, run: str, start: int) -> None:
        """start: which process of this name it is."""
        from orchestrator.cells.cell import Cell
        from orchestrator.exchange.exchange_feed import ExchangeFeed

        device = masked(job.device)
        self._feed = ExchangeFeed(job.feed, device) if isinstance(job.feed, Fed) else None
        self._cell = Cell(replace(job, device=device), self._feed)
        self._statuses = self._cell.run()
        self._status: CellStatus | None = None
        self._gauges = Gauges(run, job.name, start)
        self._answered_at: float | None = None

    def __repr__(self) -> str:
        return self._cell.job.name

    def load(self) -> CellStatus:
        """See Cell.load."""
        see_gpu(self._cell.job, self._cell.job.device)
        self._status = replace(self._cell.load(), place=place())
        return self._status

    def connect(self, index: int, producer: Any, start: int, reader: str) -> None:
        """A producer has been started: from now on rows come from there. reader: who we are."""
        from orchestrator.ray_backend.ray_line import RayLine

        assert self._feed is not None, "a cell with a model of its own needs no producer"
        line = RayLine(producer, start, reader, self._cell.job.device)
        self._feed.connect(index, line)

    def advance(self, seconds: float) -> CellStatus:
        """Go on for so long, or to the end: the last status, with the messages of all."""
        if self._answered_at is not None:
            self._cell.waited(time.monotonic() - self._answered_at)
        messages: list[str] = []
        deadline = time.monotonic() + seconds
        for status in self._statuses:
            self._status = status
            messages += status.messages
            if time.monotonic() >= deadline:
                break
        assert self._status is not None, "load() comes first"
        self._gauges.show(self._status)
        self._answered_at = time.monotonic()
        return replace(self._status, messages=tuple(messages))

    def checkpoint(self) -> CellStatus:
        """Save the state of every transcoder now."""
        self._cell.checkpoint()
        return self._cell.status(self._status.phase if self._status else "training")


def place() -> Place:
    """Of the actor that asks."""
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids().get("GPU", [])
    return Place(context.get_node_id(), platform.node(), gpus[0] if gpus else None)


def masked(device: str) -> str:
    """What a planned device is to an actor: Ray shows it its own GPU only. Where it has been told
    to hide none, the one that it gave the actor, as torch counts: all cells of a node would else
    train on its first."""
    if device == "cpu" or LOGICAL_GPUS in os.environ:
        return "cpu"
    if os.environ.get(UNMASKED, "").lower() not in ("1", "true"):  # as Ray reads it
        return "cuda:0"
    (given, *_) = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    # Where a node shows Ray some of its GPUs alone, that is what they are called there.
    seen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return f"cuda:{seen.index(given) if given in seen else given}"


def see_gpu(job: Job, device: str) -> None:
    """Raise ConfigError where Ray promises a GPU that torch cannot use."""
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise ConfigError(
            f"{job.name} was given a GPU of {platform.node()} that torch {torch.__version__} "
            "cannot use; see what nvidia-smi says there and whether that torch is built for CUDA, "
            "or use resources.device: cpu"
        )


def trainer_actor(job: CellJob, run: str, start: int, **options: Any) -> Any:
    """Start one; a handle. Ray must not restart it: the driver decides that (failures.py)."""
    remote = ray.remote(max_restarts=0, max_task_retries=0)(TranscoderTrainer)
    return remote.options(**options).remote(job, run, start)
