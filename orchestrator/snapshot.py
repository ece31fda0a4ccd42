"""How a run stands at one moment: for the screen, for status.json, and for whoever watches from
another process, who has nothing but that file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from orchestrator.cells.status import TranscoderStatus
from orchestrator.pace import pace, waits
from orchestrator.suite import Suite, training_seconds

TOKENS = "tokens"  # the phase before cells have said anything
_SHARES = (
    ("forward", "forward"),
    ("train", "steps"),
    ("checkpoint", "checkpoints"),
    ("feed", "without rows"),
    ("wait", "waits"),
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """steps: of the whole run. Rows, seconds by stage and rate: of the slowest cell, in this
    invocation. doing: what is done in words, where steps do not tell it."""

    steps: int
    phase: str = TOKENS
    doing: str = ""
    step: int = 0
    tokens_per_second: float = 0.0
    seconds_left: float | None = None
    rows_trained: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by process
    forwards: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    resident_bytes: Mapping[str, int] = field(default_factory=dict)
    replaced: int = 0
    waits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pace: str = ""
    transcoders: tuple[TranscoderStatus, ...] = ()

    @classmethod
    def of(cls, suite: Suite, doing: str = "") -> Snapshot:
        return cls(
            steps=suite.steps,
            phase=suite.phase,
            doing=doing,
            step=suite.step,
            tokens_per_second=suite.tokens_per_second,
            seconds_left=suite.seconds_left,
            rows_trained=suite.rows_trained,
            seconds=suite.seconds,
            stages=suite.stages,
            forwards=suite.forwards,
            resident_bytes=suite.resident_bytes,
            replaced=len(suite.replaced),
            waits=waits(suite),
            pace=pace(suite),
            transcoders=tuple(suite.transcoders),
        )

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Snapshot:
        """Of status.json, of this version or another: what is missing is not known."""
        ours = {name: plain[name] for name in _names(cls) & plain.keys()}
        rows = [
            TranscoderStatus(**{name: row[name] for name in _names(TranscoderStatus) & row.keys()})
            for row in plain.get("transcoders", [])
        ]
        return cls(**{"steps": 0, **ours, "transcoders": tuple(rows)})

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        plain = {name: getattr(self, name) for name in (f.name for f in fields(self))}
        return plain | {"transcoders": [row.to_dict() for row in self.transcoders]}

    @property
    def passes(self) -> int:
        """Forward passes of the model in all."""
        return sum(counts.get("passes", 0) for counts in self.forwards.values())

    @property
    def shares(self) -> list[tuple[str, float]]:
        """What training time went to, in words, and the share of it: from 1 % on."""
        total = training_seconds(dict(self.seconds))
        if not total:
            return []
        found = [(what, self.seconds.get(stage, 0.0) / total) for stage, what in _SHARES]
        return [(what, share) for what, share in found if share >= 0.01]


def _names(kind: type) -> set[str]:
    return {one.name for one in fields(kind)}
