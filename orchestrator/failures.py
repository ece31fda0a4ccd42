"""What to do about a cell that died: a typed decision. Only the driver acts on it.

Each kind of loss has a budget of its own, counted from the last time that the cell brought
something new to disk: what dies at the same place again and again is not started for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cells.status import CellLost, Loss


class Stopped(Exception):
    """The machine or the cluster, not the user, ended the run: one message, exit 3."""


BUDGETS: dict[Loss, int] = {"crash": 3, "memory": 1, "node": 10}


@dataclass(frozen=True, slots=True)
class Replace:
    """Start the cell anew."""

    attempt: int
    budget: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the run; running the command again continues it."""

    why: str


Decision = Replace | GiveUp


class FailurePolicy:
    """Remembers, for each cell, what was safe on disk when it last died, and how often of what."""

    def __init__(self) -> None:
        self._progress: dict[str, tuple[int, int]] = {}
        self._losses: dict[str, dict[Loss, int]] = {}

    def decide(self, lost: CellLost, progress: tuple[int, int]) -> Decision:
        """progress: CellStatus.progress of the cell when it was last heard of."""
        if progress > self._progress.get(lost.cell, (-1, -1)):
            self._losses[lost.cell] = {}
        self._progress[lost.cell] = max(progress, self._progress.get(lost.cell, progress))
        losses = self._losses[lost.cell]
        losses[lost.kind] = losses.get(lost.kind, 0) + 1
        attempt, budget = losses[lost.kind], BUDGETS[lost.kind]
        if attempt <= budget:
            return Replace(attempt, budget)
        return GiveUp(
            f"{lost.cell} died {attempt} times without coming to a new checkpoint in between; "
            f"the last time: {lost.why}"
        )
