"""The list of metrics: what actors export, what the Grafana dashboard shows, what WATCHING.md says.

Labels are names of runs, actors, transcoders, prefixes, stages and states: there are as many series
as things, however long a run lasts. Nothing is labelled by step. Ray adds `ray_` to every name, and
labels of its own (process, node, session): queries sum over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.cells.status import CellStatus, ProducerStatus
from orchestrator.suite import tokens_per_second

PREFIX = "ray_"
STATES = ("waiting", "training", "done", "failed")
ACTOR = ("run", "actor")
TRANSCODER = ("run", "actor", "transcoder")


@dataclass(frozen=True, slots=True)
class Metric:
    """One of them. unit: Grafana's name of it. row, title, query, legend: its panel; in a query,
    `{name}` stands for the series, those of the runs and transcoders that were chosen."""

    name: str
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    what: str
    unit: str
    row: str
    title: str
    query: str
    legend: str

    @property
    def exported(self) -> str:
        """As Prometheus knows it."""
        return PREFIX + self.name


_OF_TRANSCODER = "max by (run, transcoder) ({name})"
_OF_ACTOR = "max by (run, actor) ({name})"
_RATE = "sum by (run, actor) (rate({name}[$__rate_interval]))"

METRICS = (
    Metric(
        "mtc_fvu",
        "gauge",
        TRANSCODER,
        "FVU of the whole dictionary at the last logged step, on the training batch",
        "none",
        "Transcoders",
        "FVU (training batch)",
        _OF_TRANSCODER,
        "{{transcoder}}",
    ),
    Metric(
        "mtc_prefix_fvu",
        "gauge",
        (*TRANSCODER, "prefix"),
        "the same of each prefix, from 1",
        "none",
        "Transcoders",
        "FVU by prefix",
        "max by (run, transcoder, prefix) ({name})",
        "{{transcoder}} prefix {{prefix}}",
    ),
    Metric(
        "mtc_l0",
        "gauge",
        TRANSCODER,
        "latents kept per row at the last logged step",
        "none",
        "Transcoders",
        "L0",
        _OF_TRANSCODER,
        "{{transcoder}}",
    ),
    Metric(
        "mtc_dead_share",
        "gauge",
        TRANSCODER,
        "share of latents that are dead",
        "percentunit",
        "Transcoders",
        "Dead latents",
        _OF_TRANSCODER,
        "{{transcoder}}",
    ),
    Metric(
        "mtc_step",
        "gauge",
        TRANSCODER,
        "optimizer steps done",
        "none",
        "Transcoders",
        "Step",
        _OF_TRANSCODER,
        "{{transcoder}}",
    ),
    Metric(
        "mtc_saved_step",
        "gauge",
        TRANSCODER,
        "step of the newest checkpoint; of one that is done, the last",
        "none",
        "Transcoders",
        "Steps since the newest checkpoint",
        "max by (run, transcoder) (ray_mtc_step) - max by (run, transcoder) ({name})",
        "{{transcoder}}",
    ),
    Metric(
        "mtc_state",
        "gauge",
        (*TRANSCODER, "state"),
        f"1 for the state it is in ({', '.join(STATES)}), 0 for the others",
        "none",
        "Transcoders",
        "Transcoders by state",
        "sum by (run, state) (max by (run, transcoder, state) ({name}))",
        "{{run}} {{state}}",
    ),
    Metric(
        "mtc_tokens_per_second",
        "gauge",
        ACTOR,
        "rows trained per second of training since the process began; of cells",
        "none",
        "Speed",
        "Tokens/s since it began",
        _OF_ACTOR,
        "{{actor}}",
    ),
    Metric(
        "mtc_tokens_total",
        "counter",
        ACTOR,
        "rows trained; of cells",
        "none",
        "Speed",
        "Tokens/s now",
        _RATE,
        "{{actor}}",
    ),
    Metric(
        "mtc_stage_seconds_total",
        "counter",
        (*ACTOR, "stage"),
        "seconds by stage: of cells load, forward, feed (waiting for rows), train, checkpoint, "
        "wait (nobody asked it to work), calibrate, test; of producers load, forward, publish, "
        "credit (all cells had enough), wait",
        "percentunit",
        "Speed",
        "What time goes to",
        "sum by (run, actor, stage) (rate({name}[$__rate_interval]))",
        "{{actor}} {{stage}}",
    ),
    Metric(
        "mtc_forward_passes_total",
        "counter",
        ACTOR,
        "forward passes of the model, where it runs in this process",
        "none",
        "Speed",
        "Forward passes per second",
        _RATE,
        "{{actor}}",
    ),
    Metric(
        "mtc_late_passes",
        "gauge",  # a counter of Ray's cannot say that it stands at nothing
        ACTOR,
        "passes so far that were run again, for cells that had fallen behind; of producers",
        "none",
        "Speed",
        "Forward passes run again",
        _OF_ACTOR,
        "{{actor}}",
    ),
    Metric(
        "mtc_published_total",
        "counter",
        ACTOR,
        "portions handed out to cells; of producers",
        "none",
        "Speed",
        "Portions published per second",
        _RATE,
        "{{actor}}",
    ),
    Metric(
        "mtc_resident_bytes",
        "gauge",
        ACTOR,
        "memory of the process",
        "bytes",
        "Processes",
        "Memory",
        _OF_ACTOR,
        "{{actor}}",
    ),
    Metric(
        "mtc_start",
        "gauge",
        ACTOR,
        "which process of this name it is, from 1: what dies is replaced",
        "none",
        "Processes",
        "Processes so far, by name",
        _OF_ACTOR,
        "{{actor}}",
    ),
)

Value = tuple[str, dict[str, str], float]  # name of a metric, its labels but for run and actor


def values(status: CellStatus | ProducerStatus, start: int) -> Iterator[Value]:
    """What an actor exports when it stands like this; of a counter, its total. start: which process
    of its name it is."""
    yield "mtc_start", {}, start
    yield "mtc_resident_bytes", {}, status.resident_bytes
    for stage, seconds in status.seconds.items():
        yield "mtc_stage_seconds_total", {"stage": stage}, seconds
    if "passes" in status.forwards:
        yield "mtc_forward_passes_total", {}, status.forwards["passes"]
    yield from _of_cell(status) if isinstance(status, CellStatus) else _of_producer(status)


def _of_producer(status: ProducerStatus) -> Iterator[Value]:
    yield "mtc_late_passes", {}, status.forwards.get("late_passes", 0)
    yield "mtc_published_total", {}, status.published


def _of_cell(status: CellStatus) -> Iterator[Value]:
    yield "mtc_tokens_total", {}, status.rows_trained
    yield "mtc_tokens_per_second", {}, tokens_per_second(status)
    for row in status.transcoders:
        of: Mapping[str, str] = {"transcoder": row.id}
        yield "mtc_step", {**of}, row.step
        yield "mtc_saved_step", {**of}, row.saved_step
        for state in STATES:
            yield "mtc_state", {**of, "state": state}, float(row.state == state)
        for name, value in (
            ("mtc_fvu", row.fvu),
            ("mtc_l0", row.l0),
            ("mtc_dead_share", row.dead_share),
        ):
            if value is not None:
                yield name, {**of}, value
        for prefix, fvu in enumerate(row.fvu_by_prefix, start=1):
            yield "mtc_prefix_fvu", {**of, "prefix": str(prefix)}, fvu
