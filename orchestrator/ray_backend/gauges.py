"""What Prometheus can read of a trainer. Ray adds `ray_` to every name; never tagged by step."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from orchestrator.cells.status import CellStatus, ProducerStatus
from orchestrator.suite import tokens_per_second

_CELL = ("run", "cell")
_TRANSCODER = ("run", "cell", "transcoder")
_PREFIX = (*_TRANSCODER, "prefix")
_PRODUCER = ("run", "producer")


class Gauges:
    """Counters and gauges of one trainer's process."""

    def __init__(self, run: str, cell: str) -> None:
        self._tags = {"run": run, "cell": cell}
        self._rows = Counter("mtc_tokens_total", "Rows trained by this process.", _CELL)
        self._rate = Gauge("mtc_tokens_per_second", "Rows trained per second of training.", _CELL)
        self._wait = Gauge("mtc_wait_seconds", "Time in which nobody asked it to work.", _CELL)
        self._feed = Gauge("mtc_feed_wait_seconds", "Time spent waiting for rows.", _CELL)
        self._save = Gauge("mtc_checkpoint_seconds", "Time spent on checkpoints.", _CELL)
        self._forward = Gauge("mtc_forward_passes", "Forward passes of the model.", _CELL)
        self._step = Gauge("mtc_step", "Optimizer steps done.", _TRANSCODER)
        self._fvu = Gauge("mtc_fvu", "FVU of a prefix at the last logged step.", _PREFIX)
        self._l0 = Gauge("mtc_l0", "Kept latents per row at the last logged step.", _TRANSCODER)
        self._dead = Gauge("mtc_dead_share", "Share of latents that are dead.", _TRANSCODER)
        self._counted = 0

    def show(self, status: CellStatus) -> None:
        """Bring every value up to date."""
        seconds = status.seconds
        if status.rows_trained > self._counted:
            self._rows.inc(status.rows_trained - self._counted, self._tags)
            self._counted = status.rows_trained
        self._rate.set(tokens_per_second(status), self._tags)
        self._wait.set(seconds.get("wait", 0.0), self._tags)
        self._feed.set(seconds.get("feed", 0.0), self._tags)
        self._save.set(seconds.get("checkpoint", 0.0), self._tags)
        self._forward.set(status.forwards.get("passes", 0), self._tags)
        for row in status.transcoders:
            tags = {**self._tags, "transcoder": row.id}
            self._step.set(row.step, tags)
            for number, fvu in enumerate(row.fvu_by_prefix, start=1):
                self._fvu.set(fvu, {**tags, "prefix": str(number)})
            if row.l0 is not None:
                self._l0.set(row.l0, tags)
            if row.dead_share is not None:
                self._dead.set(row.dead_share, tags)


class ProducerGauges:
    """Gauges of one producer's process."""

    def __init__(self, run: str, producer: str) -> None:
        self._tags = {"run": run, "producer": producer}
        self._forward = Gauge("mtc_producer_passes", "Forward passes of the model.", _PRODUCER)
        self._late = Gauge("mtc_producer_late_passes", "Of them, for cells that lag.", _PRODUCER)
        self._credit = Gauge(
            "mtc_credit_wait_seconds",
            "Time in which all cells had enough.",
            _PRODUCER,
        )
        self._published = Gauge("mtc_published_steps", "Portions handed out.", _PRODUCER)

    def show(self, status: ProducerStatus) -> None:
        """Bring every value up to date."""
        self._forward.set(status.forwards.get("passes", 0), self._tags)
        self._late.set(status.forwards.get("late_passes", 0), self._tags)
        self._credit.set(status.seconds.get("credit", 0.0), self._tags)
        self._published.set(status.published, self._tags)
