"""`init_from`: the finished transcoders of one run whose weights another run starts from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtc_core.checkpoint import file_digest
from mtc_core.config import TranscoderSpec
from mtc_core.errors import CheckpointError, ConfigError
from mtc_core.transcoder import CONFIG, WEIGHTS, MatryoshkaTranscoder, spec_of_config
from orchestrator.run_folder.disk_errors import disk_errors

# What may differ between a transcoder and the one that starts from it, the weightiest first: of
# several that would fit, the one that agrees in most of the first is taken.
_MAY_DIFFER = ("seed", "k", "selection", "prefix_weights", "lr", "aux_weight", "k_aux")


@dataclass(frozen=True, slots=True)
class Start:
    """A saved transcoder to start from: its `final/` folder, and the digest that it had when the
    new run began. Picklable."""

    folder: Path
    sha256: str

    def read(self) -> MatryoshkaTranscoder:
        """Load it. Raises ConfigError or CheckpointError if it is not what it was."""
        self.check()
        return MatryoshkaTranscoder.load(self.folder)

    def check(self) -> None:
        """Raises ConfigError if the weights are gone or have changed."""
        weights = self.folder / WEIGHTS
        if not weights.is_file():
            raise ConfigError(
                f"init_from: {weights} is not there; restore it (every node needs to see it), or "
                "begin a run of another name"
            )
        with disk_errors(weights, "read"):
            found = file_digest(weights)
        if found != self.sha256:
            raise ConfigError(
                f"init_from: {weights} has changed since this run began; restore it, or begin a "
                "run of another name"
            )

    def to_dict(self) -> dict[str, str]:
        """For the pins of resolved.json, and the provenance of what is trained."""
        return {"folder": str(self.folder), "sha256": self.sha256}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Start:
        return cls(Path(plain["folder"]), plain["sha256"])


def find_starts(run: Path, specs: Iterable[TranscoderSpec]) -> dict[str, Start]:
    """For each spec, by id, what it starts from: of the finished transcoders of `run` with the same
    sites and group sizes, the one that is most like it.

    Raises ConfigError, naming every spec that has none."""
    saved = dict(_finished(run))
    chosen: dict[str, Path] = {}
    lacking: list[str] = []
    for spec in specs:
        if folder := _most_alike(spec, saved):
            chosen[spec.id] = folder
        else:
            sizes = ", ".join(map(str, spec.group_sizes))
            lacking.append(f"{spec.source} -> {spec.target} with group_sizes [{sizes}]")
    if lacking:
        has = "".join(f"\n  {folder.parent.name}" for folder in saved) or " none"
        raise ConfigError(
            f"init_from: {run} has no finished transcoder for\n  "
            + "\n  ".join(lacking)
            + f"\nIt has:{has}\nTrain what is missing there to its end, or leave it out here"
        )
    with disk_errors(run, "read"):
        return {
            id: Start(folder.absolute(), file_digest(folder / WEIGHTS))
            for id, folder in chosen.items()
        }


def _finished(run: Path) -> Iterable[tuple[Path, TranscoderSpec]]:
    for config in sorted(run.glob(f"transcoders/*/final/{CONFIG}")):
        with disk_errors(config, "read"):
            try:
                yield config.parent, spec_of_config(config.parent, json.loads(config.read_text()))
            except ValueError as error:
                raise CheckpointError(f"{config} is damaged: {error}") from None


def _most_alike(spec: TranscoderSpec, saved: dict[Path, TranscoderSpec]) -> Path | None:
    fitting = {
        folder: other
        for folder, other in saved.items()
        if (other.source, other.target, other.group_sizes)
        == (spec.source, spec.target, spec.group_sizes)
    }

    def likeness(folder: Path) -> tuple[bool, ...]:
        other = fitting[folder]
        return tuple(getattr(other, name) == getattr(spec, name) for name in _MAY_DIFFER)

    return max(fitting, key=likeness, default=None)
