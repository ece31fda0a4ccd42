"""What the processes of a run are to do, as plain values that can be sent to them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.errors import ConfigError
from mtc_core.model.model_shape import ModelShape
from mtc_core.sites import Site
from orchestrator.run_folder.init_from import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Which rows are trained on: with the model, this decides every portion. Paths are absolute
    here and below: the process may stand elsewhere."""

    tokens: Path
    seed: int
    train: TrainConfig
    context_tokens: int
    forward_contexts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A model, and the sites that are wanted of it: one for each distinct tensor."""

    model_name: str  # as the manifest has it; in `model` a local folder's path is absolute
    model: dict[str, Any]  # keyword arguments of load_model
    model_commit: str  # the weights that the run began with
    shape: ModelShape  # what the plan was made for
    provider: Literal["hf", "bridge"]
    sites: tuple[Site, ...]
    text: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """A cell whose rows come from producers, `prefetch_steps` of each ahead of their use. widths:
    of each tensor that it reads, as planned."""

    producers: int
    prefetch_steps: int
    widths: dict[str, int]
    text: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every process needs to know. `witness`: a file that only this invocation wrote: who
    sees it sees the run folder. memory_bytes: what the plan expects it to take. gpu_share: of its
    GPU; 0 on a CPU."""

    name: str
    device: str
    memory_bytes: int
    threads: int
    gpu_share: float
    witness: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CellJob(Job):
    """Transcoders to train, on rows of a model of one's own or of producers."""

    specs: tuple[TranscoderSpec, ...]
    train: TrainConfig
    transcoders: Path
    feed: Forward | Fed
    checkpoint_s: float
    checkpoint_keep: int
    provenance: dict[str, Any]  # goes into every config.json
    starts: dict[str, Start]  # by id, the weights that a transcoder starts from, if not random


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerJob(Job):
    """Portions to publish: every `count`th lot from the `index`th on. readers: the tensors that
    each cell takes, by its name."""

    index: int
    count: int
    prefetch_steps: int
    store_bytes: int  # what is published and not yet taken, at most
    forward: Forward
    readers: dict[str, tuple[str, ...]]


def reader_name(cell: str, start: int) -> str:
    """What producers call a cell: one that was started anew is another reader."""
    return f"{cell}~{start}"


def see_files(job: Job, model: str = "") -> None:
    """Raise ConfigError where this machine lacks the run's files, or a local model: the driver has
    them, and this process may be on another machine."""
    needed = [job.witness, *([Path(model)] * Path(model).is_absolute())]
    for path in needed:
        if not path.exists():
            raise ConfigError(
                f"{job.name} runs on {platform.node()}, which has no {path}: every node "
                "needs the run folder and the model under the same paths; put both on a shared "
                "file system (--root, model.name), or run on one machine, without --address"
            )
