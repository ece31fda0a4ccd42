"""What was measured of a suite, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.evaluating.results import EVALUATIONS, SPLICE, TEST, Results, finished, weights_of
from orchestrator.tables import show_rows

TOGETHER = "all together"
HEADS = ("transcoder", "CE +", "recovered zero/mean", "KL", "top-1 %", "CE + but extreme")
QUALITY_HEADS = ("transcoder", "FVU by prefix", "all rows", "ridge", "extreme rows/var", "L0")


def show_spliced_test(console: Console, run: Path) -> None:
    """What was measured of a run's test half, if it was."""
    splice, problem = spliced_test(run)
    if splice:
        console.print()
        show_splice(console, splice)
    if problem:
        console.print(problem, soft_wrap=True)


def spliced_test(run: Path) -> tuple[dict[str, Any] | None, str]:
    """What was measured of a run's test half, if it is of the weights that are there; else why it
    is not shown."""
    splice = Results(run / EVALUATIONS / TEST).read(SPLICE)
    if splice is None or splice["weights"] == weights_of(finished(run / "transcoders")):
        return splice, ""
    return None, (
        "what was measured in the model is of other transcoders, or of fewer; "
        f"`mtc-orchestrate eval {run}` measures these"
    )


def show_splice(console: Console, splice: Mapping[str, Any]) -> None:
    """The model's own predictions against those with reconstructions in place of targets."""
    where = "held-out test text" if splice["text"]["path"] is None else splice["text"]["path"]
    if splice["tokens"]:
        console.print(
            f"spliced, on {splice['tokens']:,} tokens of {where}; the model's own cross-entropy "
            f"(CE) is {splice['ce_clean']:.3f} nats",
            soft_wrap=splice["text"]["path"] is not None,  # a path is not ours to fold
        )
        show_rows(console, HEADS, splice_rows(splice))
    for line in splice_remarks(splice):
        console.print(line)


def splice_rows(splice: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under HEADS: each transcoder by itself, then all together."""
    rows = [(id, *_cells(figures)) for id, figures in splice["transcoders"].items()]
    return [*rows, (TOGETHER, *_cells(splice["joint"]))] if splice["joint"] else rows


def show_prefixes(console: Console, splice: Mapping[str, Any]) -> None:
    """What each prefix by itself does to the model's predictions, where that was measured."""
    rows = [
        (id, *(" ".join(f"{one[name]:.3f}" for one in prefixes) for name in ("ce_increase", "kl")))
        for id, figures in splice["transcoders"].items()
        if (prefixes := figures["by_prefix"])
    ]
    if rows:
        show_rows(console, ("transcoder", "CE + by prefix", "KL by prefix"), rows)


def show_own_text(console: Console, quality: Mapping[str, Any]) -> None:
    """Reconstruction on a text of the user's."""
    text = quality["text"]
    console.print(
        f"{text['path']}: {text['rows']:,} rows; FVU: 1 is the mean, 0 is perfect; of ordinary "
        "rows, and of all rows",
        soft_wrap=True,
    )
    found = quality["transcoders"]
    rows = [(id, *quality_cells(one)) for id, one in found.items() if "problem" not in one]
    if rows:
        show_rows(console, QUALITY_HEADS, rows)
    for id, one in found.items():
        if "problem" in one:
            console.print(f"{id}: {one['problem']}", soft_wrap=True)


def _cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    recovered = [figures[f"ce_recovered_{name}"] for name in ("zero", "mean")]
    return (
        f"{figures['ce_increase']:.3f} ±{figures['ce_increase_se']:.3f}",
        " / ".join("–" if value is None else f"{value:.3f}" for value in recovered),
        f"{figures['kl']:.3f}",
        f"{100 * figures['top1_agreement']:.1f}",
        f"{figures['extreme_left']['ce_increase']:.3f}",
    )


def quality_cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """FVU by prefix, of all rows, of the ridge, what is extreme, and L0."""
    ordinary = figures["ordinary"]
    extreme = (100 * figures[f"extreme_{what}_share"] for what in ("row", "variance"))
    return (
        " ".join(f"{fvu:.3f}" for fvu in ordinary["fvu_by_prefix"]),
        f"{figures['all']['fvu']:.3f}",
        f"{ordinary['fvu_ridge']:.3f}",
        " / ".join(f"{share:.1f}%" for share in extreme),
        f"{ordinary['l0']:.1f}",
    )


def splice_remarks(splice: Mapping[str, Any]) -> Iterator[str]:
    """How to read that table, and what is not in it."""
    if splice["tokens"]:
        yield (
            "CE +: how much reconstructions in place of the targets add, ± a standard error; "
            "recovered: 1 is none, 0 as much as zeros, or the mean, add; last column: extreme rows "
            "left as they are"
        )
    if splice["joint"]:
        count = len(splice["transcoders"])
        yield f"{TOGETHER}: {count} at once; each reads what those below it have made"
    elif problem := splice.get("joint_problem"):
        yield f"not spliced all together: {problem}"
    backward = [id for id, one in splice["transcoders"].items() if one["source"] == "clean"]
    if backward:
        few = ", ".join(backward[:3]) + (f" and {len(backward) - 3} more" * (len(backward) > 3))
        yield f"read from a clean pass, for their source comes after their target: {few}"
    for id, reason in splice["left_out"].items():
        yield f"not spliced: {id}: {reason}"
