"""What a run says at its end: a row for each transcoder, and what the shared forward saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from orchestrator.status import CellStatus
from orchestrator.transcoder_run import EVALUATION, FAILED
from orchestrator.view import clock, tokens_per_second


@dataclass(frozen=True, slots=True)
class Ended:
    """How one transcoder of a run stands on disk."""

    id: str
    evaluation: dict[str, Any] | None
    failure: str | None


def read_ended(transcoders: Path, ids: list[str]) -> list[Ended]:
    """What is on disk of each transcoder of a run."""
    return [
        Ended(
            id,
            _read(transcoders / id / EVALUATION),
            (_read(transcoders / id / FAILED) or {}).get("reason"),
        )
        for id in ids
    ]


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def quality_table(rows: list[Ended]) -> Table:
    """Held-out figures of the test half. FVU: 1 is the mean, 0 is perfect."""
    table = Table(title="held-out test text, ordinary rows unless said otherwise", box=None)
    table.add_column("transcoder", no_wrap=True)
    for name in ("FVU by prefix", "FVU all", "ridge", "extreme rows/var", "L0", "dead %"):
        table.add_column(name, justify="right")
    for row in rows:
        if row.evaluation is None:
            table.add_row(row.id, f"stopped: {row.failure}" if row.failure else "not finished")
            continue
        ordinary, everything = row.evaluation["ordinary"], row.evaluation["all"]
        extreme = (row.evaluation["extreme_row_share"], row.evaluation["extreme_variance_share"])
        table.add_row(
            row.id,
            " ".join(f"{fvu:.3f}" for fvu in ordinary["fvu_by_prefix"]),
            f"{everything['fvu']:.3f}",
            f"{ordinary['fvu_ridge']:.3f}",
            " / ".join(f"{100 * share:.1f}%" for share in extreme),
            f"{ordinary['l0']:.1f}",
            f"{100 * row.evaluation['dead_share']:.1f}",
        )
    return table


def show_summary(
    console: Console, rows: list[Ended], last: CellStatus | None, paths: list[Path]
) -> None:
    """Print the end of a run."""
    console.print()
    console.print(quality_table(rows), highlight=False)
    known = [row.evaluation["ordinary"]["fvu"] for row in rows if row.evaluation]
    if known:
        console.print(f"mean FVU over {len(known)} transcoders: {sum(known) / len(known):.3f}")
    for line in cost_lines(last, len(rows)) if last else []:
        console.print(line, highlight=False, soft_wrap=True)
    for path in paths:
        console.print(f"  {path}", highlight=False, soft_wrap=True, markup=False)


def cost_lines(last: CellStatus, n_transcoders: int) -> list[str]:
    """Speed, forwards and memory of this invocation, in words."""
    forwards, seconds = last.forwards, last.seconds
    if not last.rows_trained:
        return []
    trained = sum(seconds.get(stage, 0.0) for stage in ("forward", "train", "checkpoint"))
    share = 100 * seconds.get("forward", 0.0) / trained
    resident = psutil.Process().memory_info().rss / 2**30
    return [
        f"{tokens_per_second(last):,.0f} tokens/s for the whole suite: {last.rows_trained:,} rows "
        f"in {clock(trained)} (forward {share:.0f} %, transcoders and checkpoints the rest)",
        f"{forwards['passes']:,} forward passes in all: the first block ran "
        f"{forwards['first_block']:,} times, the last one needed {forwards['last_block']:,}, the "
        f"unembedding {forwards['unembedding']:,}; {n_transcoders} separate runs would have needed "
        f"{n_transcoders * forwards['passes']:,}",
        f"{resident:.1f} GiB resident",
    ]
