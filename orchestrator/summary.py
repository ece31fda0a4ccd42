"""What a run says at its end: a row for each transcoder, and what the shared forward saved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.console import Console

from mtc_core.errors import ConfigError
from orchestrator.differing import differing
from orchestrator.evaluating.show import quality_cells, show_spliced_test
from orchestrator.pace import pace
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.folder import RunFolder
from orchestrator.run_folder.transcoder_folder import TranscoderFolder
from orchestrator.shapes import NUMBER, fault
from orchestrator.suite import Suite, training_seconds
from orchestrator.tables import show_rows
from orchestrator.verdict import verdict_lines
from orchestrator.view import clock


@dataclass(frozen=True, slots=True)
class Ended:
    """How one transcoder of a run stands on disk. Its evaluation counts once it is done."""

    id: str
    evaluation: dict[str, Any] | None
    failure: str | None
    done: bool
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        return "done" if self.done else "failed" if self.failure else "unfinished"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: id, state, the spec, and figures or the reason of the failure where there are
        any."""
        reason = {"reason": self.failure} if self.failure else {}
        figures = self.evaluation or {}
        return {"id": self.id, "state": self.state, **reason, **self.spec, **figures}


def read_ended(
    run: RunFolder, ids: Sequence[str], complaints: list[str] | None = None
) -> list[Ended]:
    """What is on disk of each transcoder of a run. complaints: for who goes on without what is
    damaged, a list that takes it. Raises ConfigError where there is none."""
    specs = (run.recorded() or {}).get("specs", {})
    return [_ended(id, run.transcoder(id), specs.get(id, {}), complaints) for id in ids]


_POPULATION = {"fvu": NUMBER, "fvu_ridge": NUMBER, "l0": NUMBER, "fvu_by_prefix": [NUMBER]}
_EVALUATION = {
    "ordinary": _POPULATION, "all": _POPULATION, "k": NUMBER, "dead_share": NUMBER,
    "dead_after_tokens": NUMBER, "extreme_row_share": NUMBER, "extreme_variance_share": NUMBER,
}  # fmt: skip


def _ended(
    id: str, folder: TranscoderFolder, spec: Mapping[str, Any], complaints: list[str] | None
) -> Ended:
    def read(path: Path, shape: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            return _read(path, shape)
        except ConfigError as error:
            if complaints is None:
                raise
            complaints.append(str(error))
            return None

    # evaluation.json is written before final/, without which it will be written again.
    with disk_errors(folder.path, "read"):
        done, stopped = folder.final.exists(), folder.failed.exists()
    evaluation = read(folder.evaluation, _EVALUATION) if done else None
    failure = (read(folder.failed, {"reason": str}) or {}).get("reason")
    if failure is None and stopped:  # its presence is what stops a transcoder
        failure = "why is not known: its failed.json is damaged"
    return Ended(id, evaluation, failure, done, spec)


def _read(path: Path, shape: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        with disk_errors(path, "read"):
            if not path.exists():
                return None
            found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
    if wrong := fault(found, dict(shape)):
        raise ConfigError(f"{path} is damaged: {wrong}")
    return found


def show_quality(console: Console, rows: list[Ended]) -> None:
    """Held-out figures of the test half: a table, or lines where the terminal is narrow."""
    console.print(
        "held-out test text; FVU: 1 is the mean, 0 is perfect; of ordinary rows, and of all rows"
    )
    after = {row.evaluation["dead_after_tokens"] for row in rows if row.evaluation}
    if after:
        console.print(f"dead: silent for the last {max(after):,} rows of training")
    show_rows(console, *quality_table(rows), left=("group_sizes",))
    for line in _remarks(rows):
        console.print(line)


def quality_table(rows: Sequence[Ended]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads, and the cells of each transcoder; the first is its id."""
    apart = differing([row.spec for row in rows])
    heads = ("FVU by prefix", "all rows", "ridge", "extreme rows/var", "L0", "dead %")
    cells = [
        (row.id, *words, *_cells(row)) for row, *words in zip(rows, *apart.values(), strict=True)
    ]
    return ("transcoder", *apart, *heads), cells


def _remarks(rows: Sequence[Ended]) -> Iterator[str]:
    """What a reader of the table should not overlook."""
    widths = {tuple(accumulate(row.spec.get("group_sizes", ()))) for row in rows}
    if len(widths) == 1 and (only := widths.pop()):
        yield f"prefixes: the first {', '.join(f'{width:,}' for width in only)} latents"
    yield from verdict_lines({row.id: row.evaluation for row in rows if row.evaluation})


def _cells(row: Ended) -> tuple[str, ...]:
    if row.evaluation is None:
        return _unfinished(row), "", "", "", "", ""
    return (*quality_cells(row.evaluation), f"{100 * row.evaluation['dead_share']:.1f}")


def _unfinished(row: Ended) -> str:
    if row.done:
        return "its evaluation.json is gone, or damaged"
    return "stopped, see below" if row.failure else "not finished"


def show_end(console: Console, run: RunFolder, ids: list[str], costs: Sequence[str]) -> bool:
    """Print the end of a run: whether every transcoder came to its own. costs: of cost_lines."""
    rows = read_ended(run, ids)
    console.print()
    show_quality(console, rows)
    for row in rows:
        if row.failure:
            console.print(f"{row.id} stopped: {row.failure}", soft_wrap=True)
    show_spliced_test(console, run.path)
    known = [row.evaluation["ordinary"]["fvu"] for row in rows if row.evaluation]
    if known:
        console.print(f"mean FVU over {len(known)} transcoders: {sum(known) / len(known):.3f}")
    for line in costs:
        console.print(line, soft_wrap=True)
    console.print(f"weights: {run.transcoders}/ID/final", soft_wrap=True)
    console.print(f'in Python: mtc_core.load_suite("{run.path}")', soft_wrap=True)
    return not any(row.failure for row in rows)


def cost_lines(suite: Suite) -> Iterator[str]:
    """Speed and forwards of this invocation, in words."""
    if not suite.rows_trained:
        return
    seconds = suite.seconds
    trained = training_seconds(seconds)
    stages = (("forward", "forward"), ("feed", "without rows"), ("wait", "waits"))
    shares = [(what, 100 * seconds.get(stage, 0.0) / trained) for stage, what in stages]
    told = ", ".join(f"{what} {share:.0f} %" for what, share in shares if share >= 1)
    told = f"{told}, the rest steps and checkpoints" if told else "steps and checkpoints"
    yield (
        f"{suite.tokens_per_second:,.0f} tokens/s for the whole suite: {suite.rows_trained:,} rows "
        f"in {clock(trained)} ({told})"
    )
    yield _forward_line(suite)
    if said := pace(suite):
        yield said
    if len(suite.forwards) > 1:
        for name, forwards in suite.forwards.items():
            if forwards.get("passes"):
                yield f"  {name}: {_counted(forwards)}"


def _forward_line(suite: Suite) -> str:
    forwards = [counts for counts in suite.forwards.values() if counts.get("passes")]
    passes = sum(counts["passes"] for counts in forwards)
    line = f"{passes:,} forward passes in all: "
    if len(forwards) == 1:
        line += _counted(forwards[0])
    elif suite.producers:
        line += f"each of {len(forwards)} producers ran its part of the text"
    else:
        line += f"one for each of {len(forwards)} cells, through its own part of the layers"
    if late := sum(counts.get("late_passes", 0) for counts in forwards):
        line += f"; {late:,} of them again, for cells that had fallen behind"
    return f"{line}; separate runs would have needed {suite.separate_passes:,}"


def _counted(forwards: dict[str, int]) -> str:
    return (
        f"the first block ran {forwards['first_block']:,} times, the last one needed "
        f"{forwards['last_block']:,}, the unembedding {forwards['unembedding']:,}"
    )


def memory_line(driver: dict[str, float], cells: dict[str, int] | None) -> str:
    """`resident: driver 0.4 GiB, trainer-0[L00-L03] 1.5 GiB; the driver took 0.9 % of a core`.
    cells: their memory, None if they live in the driver's own process."""
    here = f"{driver['resident_bytes'] / 2**30:.1f} GiB"
    if cells is None:
        return f"resident: {here}"
    resident = [f"{name} {count / 2**30:.1f} GiB" for name, count in cells.items() if count]
    share = 100 * driver["training_cpu_share"]
    listed = ", ".join([f"driver {here}", *resident])
    return f"resident: {listed}; the driver took {share:.1f} % of a core in training"
