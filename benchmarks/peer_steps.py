"""From what a run says of its steps to tokens/s, the same way for all tools.

Counted are the rows of the steps after a warm-up, and the time from the end of the warm-up's last
step to the end of training: forward passes, waits, checkpoints, and the last one with them. What
comes before the first step (imports, loading, tokens, Ray) and after training is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.suite import TRAINING_STAGES


@dataclass(frozen=True, slots=True)
class Mark:
    """When so many steps were done, by any one clock, and the rows of them all."""

    step: int
    at: float
    rows: int


def tokens_per_second(marks: Sequence[Mark], ended: float, warmup: int) -> float:
    """Of the steps after the first mark that has the warm-up behind it."""
    start = next((mark for mark in marks if mark.step >= warmup), marks[-1])
    if start.step >= marks[-1].step:
        raise ValueError(f"of {marks[-1].step} steps, none is left after a warm-up of {warmup}")
    return (marks[-1].rows - start.rows) / (ended - start.at)


def peer_marks(lines: Sequence[str]) -> tuple[list[Mark], float, dict[str, Any]]:
    """Of what peer_*.py print: a mark for each step, when training ended, and what else it says."""
    marks: list[Mark] = []
    facts: dict[str, Any] = {}
    ended, rows = 0.0, 0
    for line in lines:
        said = json.loads(line)
        if "step" in said:
            rows += said["rows"]
            marks.append(Mark(said["step"], said["at"], rows))
        elif "ended" in said:
            ended = said["ended"]
        else:
            facts |= said
    return marks, ended, facts


def our_marks(
    lines: Sequence[dict[str, Any]], batch_tokens: int, block_steps: int
) -> tuple[list[Mark], float]:
    """Of `invocations/NUMBER.progress.jsonl`, with one process: a mark for each block of which it
    has a line, and when training ended.

    Lines are written about once a second, and the forward of the next block may have begun by then:
    the seconds that it has taken since the block before are taken off. It ends with the first line
    of the phase after, less what that phase has taken."""
    marks: list[Mark] = []
    forward = {}  # seconds in forward passes, by the blocks that have been trained in part
    for line in lines:
        if line["phase"] not in ("tokens", "loading", "training"):
            end = line
            break
        step, seconds = line["step"], _seconds(line)
        if step % block_steps:
            forward[step // block_steps] = seconds.get("forward", 0.0)
        elif step and (not marks or marks[-1].step < step):
            before = forward.get(step // block_steps - 1, seconds.get("forward", 0.0))
            ahead = seconds.get("forward", 0.0) - before
            marks.append(Mark(step, line["at"] - ahead, step * batch_tokens))
    else:
        raise ValueError("the run has not come to the end of its training")
    after = sum(s for stage, s in _seconds(end).items() if stage in ("calibrate", "test"))
    if not marks or marks[-1].step < end["step"]:
        marks.append(Mark(end["step"], end["at"] - after, end["step"] * batch_tokens))
    return marks, end["at"] - after


def training_stages(end: dict[str, Any]) -> dict[str, float]:
    """Of `end.json`: seconds by stage of training."""
    return {stage: end["seconds"].get(stage, 0.0) for stage in TRAINING_STAGES}


def _seconds(line: dict[str, Any]) -> dict[str, float]:
    (seconds,) = line["stages"].values()  # of one process
    return seconds
