"""What a cell says of itself while it works: plain values that cross processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Phase = Literal["loading", "training", "calibrating", "testing", "done"]


@dataclass(frozen=True, slots=True)
class TranscoderStatus:
    """One transcoder now; figures are of the last logged step, None before the first."""

    id: str
    state: str  # waiting, training, failed, done
    step: int
    fvu: float | None
    l0: float | None
    dead_share: float | None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CellStatus:
    """One cell now. Seconds and counts are of this process, since it started."""

    cell: str
    phase: Phase
    step: int
    batch_tokens: int
    transcoders: tuple[TranscoderStatus, ...] = ()
    rows_trained: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    forwards: dict[str, int] = field(default_factory=dict)  # passes, tokens, and hook counts
    messages: tuple[str, ...] = ()  # for the log; each is sent once
