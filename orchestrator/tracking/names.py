"""What our figures are called in W&B: `<transcoder id>/<name>`, a section for each transcoder.

The names are those of the common Matryoshka BatchTopK training scripts where they have the figure:

    loss                                  what is minimised: Σ w_i · l2_i / V, plus aux_loss
    l2_loss                               squared error of the whole dictionary (the last prefix)
    min_, max_, mean_l2_loss              smallest, largest and mean squared error of the prefixes
    l0_norm, num_dead_features, aux_loss  nonzeros per row; silent latents; weighted auxiliary loss
    threshold, lr                         of scaled units; this step's

and ours: fvu, fvu_prefix_1..m, dead_share, extreme_row_share. Squared errors are per row, summed
over target dimensions, of ordinary rows, in scaled units (those scripts average over dimensions:
divide by d_out). `step` and `tokens` stand once in every row, for the x-axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STEP, TOKENS = "step", "tokens"


def history_row(id: str, line: Mapping[str, Any], aux_weight: float) -> dict[str, float]:
    """One line of metrics.jsonl. Raises KeyError or TypeError if it is none."""
    l2 = line["l2_by_prefix"]
    figures = {
        "loss": line["loss"],
        "l2_loss": l2[-1],
        "min_l2_loss": min(l2),
        "max_l2_loss": max(l2),
        "mean_l2_loss": sum(l2) / len(l2),
        "l0_norm": line["l0"],
        "num_dead_features": line["dead"],
        "aux_loss": aux_weight * line["aux"],
        "fvu": line["fvu"],
        **_by_prefix(line["fvu_by_prefix"]),
        **{name: line[name] for name in ("dead_share", "extreme_row_share", "threshold", "lr")},
    }
    return {STEP: line["step"], TOKENS: line["tokens"], **_under(id, figures)}


def held_out_figures(id: str, evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The held-out figures of evaluation.json, for the summary: `<id>/test/<name>`."""
    ordinary = evaluation["ordinary"]
    figures = {
        "fvu": ordinary["fvu"],
        **_by_prefix(ordinary["fvu_by_prefix"]),
        "fvu_ridge": ordinary["fvu_ridge"],
        "fvu_all_rows": evaluation["all"]["fvu"],
        "l0": ordinary["l0"],
        "dead_share": evaluation["dead_share"],
        "extreme_row_share": evaluation["extreme_row_share"],
    }
    return _under(f"{id}/test", figures)


def spliced_figures(splice: Mapping[str, Any]) -> dict[str, float]:
    """What a suite does to its model, of splice.json: `<id>/spliced/<name>`, and of all together
    `suite/spliced/<name>`."""
    each = dict(splice["transcoders"])
    if splice["joint"]:
        each["suite"] = splice["joint"]
    named = ("ce", "ce_increase", "ce_recovered_zero", "ce_recovered_mean", "kl", "top1_agreement")
    found: dict[str, float] = {}
    for id, one in each.items():
        known = {name: one[name] for name in named if one[name] is not None}
        found |= _under(f"{id}/spliced", known)
    return found


def _by_prefix(fvu: list[float]) -> dict[str, float]:
    return {f"fvu_prefix_{i}": value for i, value in enumerate(fvu, start=1)}


def _under(section: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{section}/{name}": value for name, value in figures.items()}
