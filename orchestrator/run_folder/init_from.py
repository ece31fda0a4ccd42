"""`init_from`: the finished transcoders of one run whose weights another run starts from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtc_core.checkpoint import CONFIG, WEIGHTS, file_digest, weights_digest
from mtc_core.config import TranscoderSpec
from mtc_core.errors import CheckpointError, ConfigError
from mtc_core.model.model_shape import ModelShape
from mtc_core.saved_spec import spec_of_config
from orchestrator.run_folder.disk_errors import disk_errors

if TYPE_CHECKING:
    from mtc_core.transcoder import MatryoshkaTranscoder


@dataclass(frozen=True, slots=True)
class Start:
    """A saved transcoder to start from: its `final/` folder, and the digest that it had when the
    new run began. Picklable."""

    folder: Path
    sha256: str

    def read(self) -> MatryoshkaTranscoder:
        """Load it; `check` comes first. Raises CheckpointError."""
        from mtc_core.transcoder import MatryoshkaTranscoder

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
                f"init_from: {weights} has changed since this run began, or is damaged (its "
                "sha256 differs); restore it, or begin a run of another name"
            )

    def to_dict(self) -> dict[str, str]:
        """For the pins of resolved.json, and the provenance of what is trained."""
        return {"folder": str(self.folder), "sha256": self.sha256}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Start:
        return cls(Path(plain["folder"]), plain["sha256"])


def find_starts(
    run: Path, specs: Iterable[TranscoderSpec], shape: ModelShape
) -> tuple[dict[str, Start], list[str]]:
    """For each spec, by id, what it starts from: of the finished transcoders of `run` with the same
    sites, widths and group sizes, the one that is most like it. Beside it, the language models
    that these were trained on, in words.

    Raises ConfigError, naming every spec that has none."""
    saved = list(_finished(run))
    chosen: dict[str, _Saved] = {}
    lacking: list[str] = []
    for spec in specs:
        fitting = [one for one in saved if one.fits(spec, shape)]
        if fitting:
            chosen[spec.id] = max(fitting, key=lambda one: likeness(one.spec, spec))
        else:
            lacking.append(f"{spec.source} -> {spec.target} with {_sized(spec)}")
    if lacking:
        has = "".join(f"\n  {one}" for one in saved) or " none"
        raise ConfigError(
            f"init_from: {run} has no finished transcoder for\n  "
            + "\n  ".join(lacking)
            + f"\nIt has:{has}\nTrain what is missing there to its end, or leave it out here"
        )
    with disk_errors(run, "read"):
        starts = {
            id: Start(one.folder.absolute(), weights_digest(one.folder))
            for id, one in chosen.items()
        }
    return starts, sorted({one.model for one in chosen.values()})


@dataclass(frozen=True, slots=True)
class _Saved:
    """A finished transcoder, by its config.json."""

    folder: Path
    spec: TranscoderSpec
    d_in: int
    d_out: int
    model: str

    def fits(self, spec: TranscoderSpec, shape: ModelShape) -> bool:
        ends = ((spec.source, self.d_in), (spec.target, self.d_out))
        return _needed(self.spec) == _needed(spec) and all(
            shape.width(site) in (None, width) for site, width in ends
        )

    def __str__(self) -> str:
        return f"{self.folder.parent.name}, {self.d_in} -> {self.d_out}, {_sized(self.spec)}"


def _needed(spec: TranscoderSpec) -> tuple[object, ...]:
    """What must be the same for the weights of one to start another."""
    return (spec.source, spec.target, spec.group_sizes, spec.skip)


def _sized(spec: TranscoderSpec) -> str:
    sizes = ", ".join(map(str, spec.group_sizes))
    return f"group_sizes [{sizes}]" + (", skip: true" if spec.skip else "")


def _finished(run: Path) -> Iterator[_Saved]:
    for path in sorted(run.glob(f"transcoders/*/final/{CONFIG}")):
        with disk_errors(path, "read"):
            try:
                config = json.loads(path.read_bytes())
            except ValueError as error:
                raise CheckpointError(f"{path} is damaged: {error}") from None
        spec = spec_of_config(path.parent, config)
        model = config.get("model")
        named = f"{model.get('name')} ({model.get('commit')})" if isinstance(model, dict) else ""
        yield _Saved(path.parent, spec, config.get("d_in"), config.get("d_out"), named)


def likeness(other: TranscoderSpec, spec: TranscoderSpec) -> tuple[object, ...]:
    """Greater for the one that is more like `spec`, what matters most first: how latents are
    selected and how many, how prefixes are weighted; then what only shaped the training. Of
    equals the one whose id comes last."""
    return (
        other == spec,
        other.selection == spec.selection,
        -abs(math.log(other.k / spec.k)),
        other.prefix_weights == spec.prefix_weights,
        other.seed == spec.seed,
        other.lr == spec.lr,
        other.aux_weight == spec.aux_weight,
        other.k_aux == spec.k_aux,
        other.id,
    )
