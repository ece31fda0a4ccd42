"""A run read into flat rows: one of the run, one of each of its transcoders.

From its index, `resolved.json`, `status.json` and what was measured of the test half. Figures of
the model's predictions count where they are of the weights that are there.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtc_core.errors import MtcError
from mtc_core.sites import Site
from orchestrator.evaluating.results import EVALUATIONS, SPLICE, TEST, Results
from orchestrator.registry.columns import RUN, TRANSCODER
from orchestrator.registry.index import open_index
from orchestrator.registry.small_files import ODD, as_json, number, text
from orchestrator.status_file import NAME as STATUS
from orchestrator.status_file import read_status
from orchestrator.verdict import broken_rules

# A trainer outlives a driver that is gone by three minutes at most: TranscoderFolder.claim.
QUIET_S = 600.0
GOOD = "good"
_SPLICED = (
    "ce_increase", "ce_increase_se", "ce_recovered_zero", "ce_recovered_mean", "kl",
    "top1_agreement",
)  # fmt: skip
_INDEXED = """
SELECT t.*, o.fvu, o.fvu_ridge, o.fvu_bias_only, o.l0, o.never_fired_share, o.figures,
  a.fvu AS fvu_all, e.dead_share, e.extreme_row_share, e.extreme_variance_share, e.threshold,
  b.fvu AS batch_fvu, b.l0 AS batch_l0, b.dead_share AS batch_dead_share
FROM transcoders t
LEFT JOIN populations o ON o.transcoder = t.id AND o.population = 'ordinary'
LEFT JOIN populations a ON a.transcoder = t.id AND a.population = 'all'
LEFT JOIN evaluations e ON e.transcoder = t.id
LEFT JOIN training b ON b.transcoder = t.id
ORDER BY t.rowid
"""


@dataclass(slots=True)
class FlatRun:
    """Values of the columns RUN and TRANSCODER, but for the path. at_work: somebody may be about to
    change it, so that nobody should keep this."""

    run: dict[str, Any]
    transcoders: list[dict[str, Any]] = field(default_factory=list)
    at_work: bool = False


def read_flat(run: Path) -> FlatRun:
    """A run that cannot be read hides none of the others: its state is `unreadable`."""
    try:
        with closing(open_index(run)) as index:
            index.row_factory = sqlite3.Row
            (head,) = map(dict, index.execute("SELECT * FROM run"))
            rows = list(map(dict, index.execute(_INDEXED)))
            ended = index.execute("SELECT ended FROM invocations ORDER BY number DESC").fetchone()
        resolved = json.loads((run / "resolved.json").read_bytes())
        splice = Results(run / EVALUATIONS / TEST).read(SPLICE) or {}
        status = read_status(run) or {"state": "prepared"}
        return FlatRun(
            _run(run, head, rows, resolved, status),
            list(_transcoders(rows, resolved["specs"], splice)),
            _at_work(run, status, ended is None or ended[0] is not None),
        )
    except (MtcError, OSError, *ODD) as error:
        told = str(error) if isinstance(error, MtcError) else f"{run} is damaged: {error!r}"
        unread = {**dict.fromkeys(RUN), "run": run.name, "run_state": "unreadable"}
        return FlatRun({**unread, "run_reason": told, "transcoders": 0, "done": 0}, at_work=True)


def _run(
    run: Path,
    head: Mapping[str, Any],
    rows: list[dict[str, Any]],
    resolved: Mapping[str, Any],
    status: Mapping[str, Any],
) -> dict[str, Any]:
    known = [row["fvu"] for row in rows if row["fvu"] is not None]
    data = resolved["data"]
    return {
        **dict.fromkeys(RUN),
        **{name: value for name, value in head.items() if name in RUN},
        "run": run.name,
        "run_state": status["state"],
        "run_seed": head["seed"],
        "run_step": number(status.get("step")) or 0,
        "context_tokens": number(data.get("context_tokens")),
        "holdout_tokens": number(data.get("holdout_tokens")),
        "extreme": text(resolved["train"].get("extreme")),
        "tokens_per_second": number(status.get("tokens_per_second")) or None,
        "mean_fvu": sum(known) / len(known) if known else None,
    }


def _transcoders(
    rows: list[dict[str, Any]], specs: Mapping[str, Any], splice: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    verdicts = _verdicts(rows)
    for row in rows:
        spec, ridge = specs[row["id"]], row["fvu_ridge"]
        figures = json.loads(row["figures"] or "{}")
        yield {
            **{name: row.get(name) for name in TRANSCODER},
            "source_kind": Site.parse(spec["source"]).kind,
            "target_kind": Site.parse(spec["target"]).kind,
            "skip": bool(spec.get("skip", False)),
            "prefix_weights": as_json(spec["prefix_weights"]),
            "aux_weight": spec["aux_weight"],
            "k_aux": spec["k_aux"],
            "fvu_over_ridge": row["fvu"] / ridge if ridge and row["fvu"] is not None else None,
            "fvu_by_prefix": as_json(figures.get("fvu_by_prefix")),
            "verdict": verdicts.get(row["id"]),
            **_spliced(row, splice),
        }


def _verdicts(rows: list[dict[str, Any]]) -> dict[str, str]:
    evaluations = {
        row["id"]: {"ordinary": json.loads(row["figures"]), **row} for row in rows if row["figures"]
    }
    with suppress(KeyError, TypeError):  # of an older version, without what the rules ask for
        broken = broken_rules(evaluations)
        return {id: ", ".join(names) or GOOD for id, names in broken.items()}
    return {}


def _spliced(row: Mapping[str, Any], splice: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured with this one alone in its place; of these very weights, or nothing."""
    weights = splice.get("weights", {}).get(row["id"])
    figures = splice.get("transcoders", {}).get(row["id"])
    if figures is None or weights is None or weights != row["weights_sha256"]:
        return {}
    known = {name: number(figures.get(name)) for name in _SPLICED}
    return {**known, "spliced_tokens": number(splice.get("tokens"))}


def _at_work(run: Path, status: Mapping[str, Any], ended: bool) -> bool:
    if status["state"] == "running":
        return True
    with suppress(FileNotFoundError):
        silent_s = time.time() - os.stat(run / STATUS).st_mtime
        return not ended and silent_s < QUIET_S
    return False
