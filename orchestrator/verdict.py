"""Is a transcoder worth having? Rules on its held-out figures, each with what to change.

Ours: on ordinary rows it beats a linear map, keeps to k, has few dead latents, every group adds
something, and it is not far behind the rest of its suite. The single-script guide's: relative
L2 < 0.1, L0 ≈ k, dead < 10 %, groups contribute differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

DEAD, OFF_K, RELATIVE_L2 = 0.10, 0.05, 0.1
BEHIND = 1.5  # times the suite's median of FVU over the ridge's
ADDS = 0.01  # of the FVU before it, at least, for a group to count
SHOWN = 3

Evaluation = Mapping[str, Any]  # evaluation.json


@dataclass(frozen=True, slots=True)
class Rule:
    """what: said of those that break it. advice: what to change. broken: by one evaluation, given
    the suite's median of FVU over the ridge's."""

    name: str
    what: str
    advice: str
    broken: Callable[[Evaluation, float], bool]


def _worse_than_a_line(one: Evaluation, _: float) -> bool:
    return one["ordinary"]["fvu"] > one["ordinary"]["fvu_ridge"]


def _off_k(one: Evaluation, _: float) -> bool:
    return abs(one["ordinary"]["l0"] / one["k"] - 1) > OFF_K


def _dead(one: Evaluation, _: float) -> bool:
    return one["dead_share"] >= DEAD


def _idle_group(one: Evaluation, _: float) -> bool:
    fvus = one["ordinary"]["fvu_by_prefix"]
    return any(after > (1 - ADDS) * before for before, after in pairwise(fvus))


def _behind(one: Evaluation, usual: float) -> bool:
    return _against_ridge(one) > BEHIND * usual


RULES = (
    Rule(
        "ridge",
        "worse than a linear map (ridge)",
        "train longer (train.tokens), or raise k or group_sizes",
        _worse_than_a_line,
    ),
    Rule(
        "l0",
        "L0 more than 5 % off k",
        "raise data.holdout_tokens, whose calibration half sets the threshold; with selection: "
        "topk or a threshold of 0 too few latents are positive, so lower k or train longer instead",
        _off_k,
    ),
    Rule(
        "dead",
        "10 % dead latents or more",
        "raise aux_weight or k, lower lr, train longer, or make group_sizes smaller",
        _dead,
    ),
    Rule(
        "groups",
        "a group adds next to nothing",
        "adjust the ratios of group_sizes, or prefix_weights",
        _idle_group,
    ),
    Rule(
        "behind",
        "far behind the rest of the suite against the linear map",
        "raise k or group_sizes there",
        _behind,
    ),
)


def broken_rules(evaluations: Mapping[str, Evaluation]) -> dict[str, list[str]]:
    """By transcoder, the names of the rules that it breaks."""
    usual = median(map(_against_ridge, evaluations.values())) if evaluations else 0.0
    return {
        id: [rule.name for rule in RULES if rule.broken(one, usual)]
        for id, one in evaluations.items()
    }


def passes_the_guide(one: Evaluation) -> bool:
    """The guide's own rule, on ordinary rows. relative L2: Σ‖y − ŷ‖² / Σ‖y‖²."""
    relative = one["ordinary"].get("relative_l2", 1.0)
    others = (_off_k, _dead, _idle_group)
    return relative < RELATIVE_L2 and not any(broken(one, 0.0) for broken in others)


def verdict_lines(evaluations: Mapping[str, Evaluation]) -> Iterator[str]:
    """For people: what is wrong, with what to change; how many are good; and the guide's rule."""
    if not evaluations:
        return
    broken = broken_rules(evaluations)
    for rule in RULES:
        if found := [id for id, names in broken.items() if rule.name in names]:
            yield f"{rule.what}: {_few(found)}; {rule.advice}"
    good = sum(not names for names in broken.values())
    yield (
        f"verdict: {good} of {len(broken)} good (beat a linear map, keep to k, fewer than 10 % "
        "dead, every group adds, not behind the suite)"
    )
    passing = [id for id, one in evaluations.items() if passes_the_guide(one)]
    yield (
        f"the guide's rule (relative L2 < {RELATIVE_L2}, L0 ≈ k, dead < 10 %, groups contribute): "
        + (f"only {passing[0]}" if len(passing) == 1 < len(broken) else f"{len(passing)} pass")
    )


def _few(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more


def _against_ridge(one: Evaluation) -> float:
    ridge = one["ordinary"]["fvu_ridge"]
    return one["ordinary"]["fvu"] / ridge if ridge > 0 else 1.0
