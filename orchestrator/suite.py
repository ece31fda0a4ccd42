"""The suite in training: what all cells said last, as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.cells.status import ENDED, CellStatus, Phase, TranscoderStatus

PHASES: tuple[Phase, ...] = ("loading", "training", "calibrating", "testing", "done")
TRAINING_STAGES = ("forward", "train", "checkpoint", "wait")


class Suite:
    """Cells by name, each as it last said. Replaced ones count for what they did."""

    def __init__(self, steps: int, cells: Sequence[CellStatus]) -> None:
        """cells: what is known of them before they have said anything, in the plan's order."""
        self.steps = steps
        self.cells = {status.cell: status for status in cells}
        self._unfinished = {
            status.cell: sum(row.state not in ENDED for row in status.transcoders)
            for status in cells
        }
        self.replaced: list[CellStatus] = []

    def update(self, status: CellStatus) -> None:
        self.cells[status.cell] = status

    def replace(self, cell: str) -> None:
        """A cell begins anew: what its process did is kept for the counts."""
        lost = self.cells[cell]
        self.replaced.append(lost)
        self.cells[cell] = replace(
            lost, phase="loading", rows_trained=0, seconds={}, forwards={}, resident_bytes=0
        )

    @property
    def phase(self) -> Phase:
        """That of the cell that is furthest behind."""
        return min((cell.phase for cell in self.cells.values()), key=PHASES.index)

    @property
    def step(self) -> int:
        """Of the cell that is furthest behind; one that has ended, at whatever step, is not."""
        working = [cell.step for cell in self.cells.values() if cell.phase != "done"]
        return min(working) if working else max(cell.step for cell in self.cells.values())

    @property
    def transcoders(self) -> list[TranscoderStatus]:
        return [row for cell in self.cells.values() for row in cell.transcoders]

    @property
    def tokens_per_second(self) -> float:
        """Of the slowest cell: the suite is done when that one is. 0 before any has trained."""
        seconds = training_seconds(self.seconds)
        return self.rows_trained / seconds if seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """By each cell's own rate; None before there is one."""
        working = [cell for cell in self.cells.values() if cell.phase != "done"]
        left = [
            (self.steps - cell.step) * cell.batch_tokens / rate
            for cell in working
            if (rate := tokens_per_second(cell))
        ]
        return max(left) if left and len(left) == len(working) else None

    @property
    def rows_trained(self) -> int:
        """Of the slowest cell, replaced processes included."""
        return self._counted(name)["rows"] if (name := self._slowest) else 0

    @property
    def seconds(self) -> dict[str, float]:
        """By stage, of the slowest cell; before any has trained, of the first."""
        return self._seconds(self._slowest or next(iter(self.cells)))

    @property
    def forwards(self) -> dict[str, dict[str, int]]:
        """By cell: passes, tokens, and what its hooks counted; replaced processes included."""
        return {
            name: {what: n for what, n in self._counted(name).items() if what != "rows"}
            for name in self.cells
        }

    @property
    def separate_passes(self) -> int:
        """Forward passes that as many runs would have needed, each of one of the transcoders that
        were not yet at their end."""
        return sum(self._unfinished[name] * self._counted(name)["passes"] for name in self.cells)

    @property
    def resident_bytes(self) -> dict[str, int]:
        return {name: cell.resident_bytes for name, cell in self.cells.items()}

    @property
    def _slowest(self) -> str | None:
        """Of the cells that have trained. What is said of rows, seconds and rate is said of it."""
        rates = {
            name: self._counted(name)["rows"] / seconds
            for name in self.cells
            if (seconds := training_seconds(self._seconds(name))) and self._counted(name)["rows"]
        }
        return min(rates, key=lambda name: rates[name]) if rates else None

    def _lives(self, name: str) -> list[CellStatus]:
        return [*(cell for cell in self.replaced if cell.cell == name), self.cells[name]]

    def _counted(self, name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for life in self._lives(name):
            total.update({"rows": life.rows_trained, **life.forwards})
        return total

    def _seconds(self, name: str) -> dict[str, float]:
        total: dict[str, float] = {}
        for life in self._lives(name):
            for stage, seconds in life.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
        return total


def training_seconds(seconds: dict[str, float]) -> float:
    """Of seconds by stage, those that training took."""
    return sum(seconds.get(stage, 0.0) for stage in TRAINING_STAGES)


def tokens_per_second(status: CellStatus) -> float:
    """Trained rows over the seconds of training: forward, checkpoints and waits included."""
    seconds = training_seconds(status.seconds)
    return status.rows_trained / seconds if seconds else 0.0
