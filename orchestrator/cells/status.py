"""What a cell says of itself while it works: plain values that cross processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Phase = Literal["loading", "training", "calibrating", "testing", "done"]
ENDED = ("done", "failed")  # states of a transcoder that nobody trains any more
Loss = Literal["crash", "memory", "node"]


@dataclass(frozen=True, slots=True)
class TranscoderStatus:
    """One transcoder now; figures are of the last logged step, None before the first.
    saved_step: the step of its newest checkpoint, all steps once it is done."""

    id: str
    state: str  # waiting, training, failed, done
    step: int = 0
    saved_step: int = 0
    fvu: float | None = None
    fvu_by_prefix: tuple[float, ...] = ()
    l0: float | None = None
    dead_share: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs: the id of its node, the name of its machine, its GPU."""

    node: str
    host: str
    gpu: str | None


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
    resident_bytes: int = 0
    place: Place | None = None  # where it is known
    messages: tuple[str, ...] = ()  # for the log; each is sent once

    @property
    def name(self) -> str:
        return self.cell

    @property
    def progress(self) -> tuple[int, int]:
        """What is safe on disk: transcoders at their end, steps of all the others. Of one that
        has ended a new process no longer knows the steps."""
        ended = sum(row.state in ENDED for row in self.transcoders)
        return ended, sum(row.saved_step for row in self.transcoders if row.state not in ENDED)


@dataclass(frozen=True, slots=True)
class ProducerStatus:
    """One producer now. Seconds and counts are of this process, since it started: `credit` are
    seconds in which all cells had what they could take; `late_passes` of the forwards were for
    cells that lag behind the others. most_stocked: portions held for cells at once, at most."""

    name: str
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    forwards: dict[str, int] = field(default_factory=dict)
    published: int = 0
    most_stocked: int = 0
    resident_bytes: int = 0
    place: Place | None = None
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CellLost:
    """The process of a cell or a producer is gone. `why` is for people; `kind` decides what is done
    about it."""

    cell: str
    kind: Loss
    why: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What a backend has to tell of the machines that it uses."""

    text: str


Event = CellStatus | ProducerStatus | CellLost | Notice
