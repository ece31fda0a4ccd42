"""`tracking.json`: which W&B run a run of ours is, and how much that has been given.

An offset here means bytes of metrics.jsonl that W&B has safely: after a kill a few points are given
twice, with the same values, and none is missing. Whoever changes where metrics go (mode, server,
project, entity) gets all of them there: the offsets start anew. So does everything where the run
itself was begun anew under an old name.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mtc_core.atomic import write_json_atomic

NAME = "tracking.json"
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where metrics go. `server` is a host name; None: the one for which wandb is configured."""

    mode: str
    project: str
    entity: str | None
    server: str | None


@dataclass(slots=True)
class TrackingFile:
    """The content of `tracking.json`."""

    run: str  # digest of resolved.json, which stays the same for the life of a run
    id: str
    destination: Destination
    given_bytes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, resolved: bytes, destination: Destination) -> TrackingFile:
        """What is recorded in a run folder, as far as it still holds; else a new W&B run."""
        run = hashlib.sha256(resolved).hexdigest()
        try:
            content = json.loads((folder / NAME).read_bytes())
            found = cls(**{**content, "destination": Destination(**content["destination"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            found = None  # none yet, or damaged: nothing but a link is lost
        if found is None or found.run != run:
            id = "".join(secrets.choice(_LETTERS) for _ in range(8))
            return cls(run, id, destination)
        if found.destination != destination:
            return cls(run, found.id, destination)
        return found

    def save(self, folder: Path) -> None:
        write_json_atomic(folder / NAME, asdict(self))
