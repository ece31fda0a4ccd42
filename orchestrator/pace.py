"""Who waits for whom, and so what a faster run would need more of: where producers feed cells."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.suite import Suite, training_seconds

LITTLE = 0.05  # of one's time
_PRODUCING = ("forward", "publish", "credit", "wait")


def waits(suite: Suite) -> dict[str, dict[str, float]]:
    """By process: `feed_wait_s` of a cell, seconds without rows to train on; `credit_wait_s` of a
    producer, seconds in which all cells had what they could take."""
    if not suite.producers:
        return {}
    stages = suite.stages
    found = {name: {"credit_wait_s": stages[name].get("credit", 0.0)} for name in suite.producers}
    return found | {name: {"feed_wait_s": stages[name].get("feed", 0.0)} for name in suite.cells}


def pace(suite: Suite) -> str:
    """What sets the pace, in words; nothing where nobody feeds anybody, or before anybody has
    worked. Of several, the one that waits least."""
    stages = suite.stages
    feed = _least({name: stages[name] for name in suite.cells}, "feed")
    credit = _least({name: stages[name] for name in suite.producers}, "credit")
    if feed is None or credit is None:
        return ""
    (cell, starved), (producer, idle) = feed, credit
    if max(starved, idle) < LITTLE:
        return "cells and producers keep pace with each other"
    if starved > idle:
        return (
            f"the forward sets the pace: even {cell} waited {starved:.0%} of its time for rows; "
            "more resources.producers, if there are devices for them, or topology: fused"
        )
    return (
        f"training sets the pace: {cell} waited {starved:.0%} of its time for rows, and "
        f"{producer} {idle:.0%} of its own for cells; more resources.cells, if there are devices "
        "for them"
    )


def _least(stages: Mapping[str, Mapping[str, float]], stage: str) -> tuple[str, float] | None:
    """Whoever spent the smallest share of its time on a stage, and that share."""
    shares = {
        name: seconds.get(stage, 0.0) / total
        for name, seconds in stages.items()
        if (total := _busy(dict(seconds), stage))
    }
    if not shares:
        return None
    name = min(shares, key=lambda name: shares[name])
    return name, shares[name]


def _busy(seconds: dict[str, float], stage: str) -> float:
    if stage == "feed":
        return training_seconds(seconds)
    return sum(seconds.get(name, 0.0) for name in _PRODUCING)
