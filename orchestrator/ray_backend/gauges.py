"""What an actor shows to Prometheus, through Ray: the metrics of its process."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from orchestrator.cells.status import CellStatus, ProducerStatus
from orchestrator.monitoring.metrics import METRICS, values


class Gauges:
    """Counters and gauges of one process. start: see `values`."""

    def __init__(self, run: str, actor: str, start: int) -> None:
        self._always = {"run": run, "actor": actor}
        self._start = start
        self._gauges = {
            m.name: Gauge(m.name, m.what, m.labels) for m in METRICS if m.kind == "gauge"
        }
        self._counters = {
            m.name: Counter(m.name, m.what, m.labels) for m in METRICS if m.kind == "counter"
        }
        self._counted: dict[tuple[str, ...], float] = {}

    def show(self, status: CellStatus | ProducerStatus) -> None:
        """Bring every value up to date."""
        for name, labels, value in values(status, self._start):
            tags = {**self._always, **labels}
            if name in self._gauges:
                self._gauges[name].set(value, tags)
                continue
            series = (name, *tags.values())
            if (more := value - self._counted.get(series, 0.0)) > 0:
                self._counters[name].inc(more, tags)
                self._counted[series] = value
