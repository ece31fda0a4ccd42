"""The suite in training: what all cells said last, as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.cells.status import (
    ENDED,
    CellStatus,
    Phase,
    ProducerStatus,
    TranscoderStatus,
)

PHASES: tuple[Phase, ...] = ("loading", "training", "calibrating", "testing", "done")
TRAINING_STAGES = ("forward", "feed", "train", "checkpoint", "wait")


class Suite:
    """Cells and producers by name, each as it last said. Replaced ones count for what they did."""

    def __init__(
        self, steps: int, cells: Sequence[CellStatus], producers: Sequence[str] = ()
    ) -> None:
        """cells: what is known of them before they have said anything, in the plan's order."""
        self.steps = steps
        self.cells = {status.cell: status for status in cells}
        self.producers = {name: ProducerStatus(name) for name in producers}
        self._unfinished = {
            status.cell: sum(row.state not in ENDED for row in status.transcoders)
            for status in cells
        }
        self.replaced: list[CellStatus | ProducerStatus] = []

    def update(self, status: CellStatus | ProducerStatus) -> None:
        if isinstance(status, CellStatus):
            self.cells[status.name] = status
        else:
            self.producers[status.name] = status

    def replace(self, name: str) -> None:
        """A cell or a producer begins anew: what its process did is kept for the counts."""
        if name in self.producers:
            self.replaced.append(self.producers[name])
            self.producers[name] = ProducerStatus(name)
            return
        lost = self.cells[name]
        self.replaced.append(lost)
        self.cells[name] = replace(
            lost, phase="loading", rows_trained=0, seconds={}, forwards={}, resident_bytes=0
        )

    def progress(self, name: str) -> tuple[int, int]:
        """What is safe on disk of a cell, or of all that a producer feeds."""
        cells = [self.cells[name]] if name in self.cells else self.cells.values()
        ended, saved = zip(*(cell.progress for cell in cells), strict=True)
        return sum(ended), sum(saved)

    def from_where(self, name: str) -> str:
        """Where a new process of that name goes on."""
        return "with what cells need" if name in self.producers else "from its last checkpoint"

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
        """Of cells, or of producers: passes, tokens, and what hooks counted; replaced processes
        included."""
        return {
            name: {what: n for what, n in self._counted(name).items() if what != "rows"}
            for name in self.producers or self.cells
        }

    @property
    def separate_passes(self) -> int:
        """Forward passes that as many runs would have needed, each of one of the transcoders that
        were not yet at their end."""
        if self.producers:
            passes = sum(self._counted(name)["passes"] for name in self.producers)
            return sum(self._unfinished.values()) * passes
        return sum(self._unfinished[name] * self._counted(name)["passes"] for name in self.cells)

    @property
    def resident_bytes(self) -> dict[str, int]:
        producers = {name: status.resident_bytes for name, status in self.producers.items()}
        return producers | {name: cell.resident_bytes for name, cell in self.cells.items()}

    @property
    def stages(self) -> dict[str, dict[str, float]]:
        """By process: seconds by stage, replaced processes included."""
        return {name: self._seconds(name) for name in (*self.producers, *self.cells)}

    @property
    def _slowest(self) -> str | None:
        """Of the cells that have trained. What is said of rows, seconds and rate is said of it."""
        rates = {
            name: self._counted(name)["rows"] / seconds
            for name in self.cells
            if (seconds := training_seconds(self._seconds(name))) and self._counted(name)["rows"]
        }
        return min(rates, key=lambda name: rates[name]) if rates else None

    def _lives(self, name: str) -> list[CellStatus | ProducerStatus]:
        now = self.cells[name] if name in self.cells else self.producers[name]
        return [*(status for status in self.replaced if status.name == name), now]

    def _counted(self, name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for life in self._lives(name):
            rows = life.rows_trained if isinstance(life, CellStatus) else 0
            total.update({"rows": rows, **life.forwards})
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
