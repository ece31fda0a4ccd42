"""Checkpoints: one folder per transcoder and step, whole or absent, with a sha256 for each file.

    step-000012000/state.safetensors    every tensor of TranscoderTrainer.state()
    step-000012000/facts.json           what belongs to them: step, byte length of metrics.jsonl
    step-000012000/sha256.json          file name -> digest; written last

Written to a temporary folder, synced, renamed. A damaged one is passed over for the one before.
Names and digests load without torch, for those who only look at a run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtc_core.atomic import (
    json_bytes,
    new_folder,
    remove_folder,
    remove_leftovers,
    write_json_atomic,
)
from mtc_core.errors import CheckpointError, TrainingStopped

if TYPE_CHECKING:
    from torch import Tensor

STEP = re.compile(r"step-(\d{9}|[1-9]\d{9,})")
STATE, FACTS, DIGESTS = "state.safetensors", "facts.json", "sha256.json"
# Of a saved transcoder: FORMAT.md.
CONFIG, WEIGHTS, REFERENCE = "config.json", "weights.safetensors", "reference.safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint, in memory."""

    path: Path
    state: dict[str, Tensor]
    facts: dict[str, Any]


def write_checkpoint(
    folder: Path, step: int, state: Mapping[str, Tensor], facts: Mapping[str, Any], keep: int
) -> Path:
    """Write `folder/step-…` and drop all but the newest `keep`.

    Raises TrainingStopped, and writes nothing, where a tensor is not finite."""
    from safetensors.torch import save_file

    for name, tensor in state.items():
        if tensor.is_floating_point() and not _finite(tensor):
            raise TrainingStopped(
                f"{name} is not finite after {step} steps; lower its lr (or train.lr), or set "
                "model.dtype: float32 if the model's activations overflow"
            )
    path = folder / f"step-{step:09d}"
    with new_folder(path) as temporary:
        save_file({k: v.contiguous().cpu() for k, v in state.items()}, temporary / STATE)
        write_json_atomic(temporary / FACTS, {"step": step, **facts})
        digests = {name: file_digest(temporary / name) for name in (STATE, FACTS)}
        write_json_atomic(temporary / DIGESTS, digests)
    # A later one is damaged, or this step would not be written again: it must not count as newest.
    paths = checkpoint_paths(folder)
    for old in paths[: paths.index(path) + 1][:-keep]:
        remove_folder(old)
    return path


def _finite(tensor: Tensor) -> bool:
    """Without a copy of it: `isfinite` makes several, and writers have memory of their own each."""
    import torch

    return not tensor.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def read_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and a sentence for each damaged one passed over."""
    if folder.exists():
        remove_leftovers(folder)
    complaints: list[str] = []
    for path in reversed(checkpoint_paths(folder)):
        try:
            return read_checkpoint(path), complaints
        except CheckpointError as error:
            complaints.append(str(error))
    return None, complaints


def read_checkpoint(path: Path) -> Checkpoint:
    """Verify and load one checkpoint folder. Raises CheckpointError if it is damaged."""
    from safetensors.torch import load_file

    try:
        digests = read_digests(path / DIGESTS)
        for name in (STATE, FACTS):
            if file_digest(path / name) != digests.get(name):
                raise CheckpointError(f"{path / name} is damaged: its sha256 differs")
        return Checkpoint(path, load_file(path / STATE), json.loads((path / FACTS).read_bytes()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def checkpoint_paths(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first: what users lay beside them is theirs."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if STEP.fullmatch(path.name) and path.is_dir()),
                  key=lambda path: int(path.name.removeprefix("step-")))  # fmt: skip


def read_digests(path: Path) -> dict[str, str]:
    """File name -> digest. Raises OSError, and ValueError where the bytes are not those that were
    written: no digest vouches for this file, but its form does, to a blank at its end."""
    content = path.read_bytes()
    try:
        digests = json.loads(content)
        as_written = isinstance(digests, dict) and json_bytes(digests) == content
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not as_written:
        raise ValueError(f"{path.name} is not as it was written")
    return digests


def file_digest(path: Path) -> str:
    """Hex sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(folder: Path) -> str:
    """The sha256 of a saved transcoder's weights as it was recorded, which is often enough for
    gigabytes; computed where nothing is recorded. Raises OSError."""
    try:
        return str(json.loads((folder / DIGESTS).read_bytes())[WEIGHTS])
    except (OSError, ValueError, KeyError, TypeError):  # not there: an older or a copied one
        return file_digest(folder / WEIGHTS)
