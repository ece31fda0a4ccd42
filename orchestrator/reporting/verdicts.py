"""What a reader of a report learns in ten seconds: is the suite good, which of it is not, and what
to change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.reporting.gather import Gathered
from orchestrator.reporting.labels import few
from orchestrator.verdict import OFF_K, RULES
from orchestrator.view import clock

ALL_GOOD = (
    "Each beats a linear map, keeps to k and has fewer than 10 % dead latents; every group adds "
    "something, and none is far behind the rest."
)
GOOD, WARN, BAD, NONE = "good", "warn", "bad", "soft"


@dataclass(frozen=True, slots=True)
class Banner:
    """mood: a class of style.css. lines: what is wrong, each with what to change."""

    mood: str
    headline: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A figure of the strip beneath the banner."""

    name: str
    value: str
    note: str
    mood: str = ""


def banner(run: Gathered) -> Banner:
    evaluated, every = run.evaluated, len(run.rows)
    failed = [row for row in run.rows if row.state == "failed"]
    open_ones = sum(row.state == "unfinished" for row in run.rows)
    bad = [run.label(id) for id in evaluated if run.broken[id]]
    bare = [run.label(row.id) for row in run.rows if row.done and row.evaluation is None]
    good = len(evaluated) - len(bad)
    lines = [*_wrong(run), *_unfinished(run, open_ones)]
    if bare:
        lines.append(f"{few(bare, every)}: done, without figures; registry verify says what to do.")
    if not evaluated and not bare:
        stopped = f"all {every} stopped" if len(failed) == every else "nothing is finished yet"
        return Banner(BAD if failed else WARN, stopped, tuple(lines))
    if good == every:
        lines.append(ALL_GOOD)
    parts = [f"{good} of {every} good"]
    if bad and len(bad) < every:
        parts.append(f"not good: {few(bad)}")
    if failed:
        parts.append(f"stopped: {few([run.label(row.id) for row in failed])}")
    if bare:
        parts.append(f"{len(bare)} without figures")
    if open_ones:
        parts.append(f"{open_ones} not finished")
    worst = any({"ridge", "dead"} & set(names) for names in run.broken.values())
    if failed or worst or len(bad) == len(evaluated) > 0:
        mood = BAD
    else:
        mood = GOOD if good == every else WARN
    return Banner(mood, "; ".join(parts), tuple(lines))


def mark(run: Gathered, id: str) -> tuple[str, str]:
    """(mood, words) of one transcoder."""
    row = next(row for row in run.rows if row.id == id)
    if row.failure and not row.done:
        return BAD, "✗ stopped"
    if row.evaluation is None:
        return NONE, "· no figures" if row.done else "· not finished"
    words = [rule.what for rule in RULES if rule.name in run.broken[id]]
    return (BAD, f"✗ {'; '.join(words)}") if words else (GOOD, "✓ good")


def key_figures(run: Gathered) -> Iterator[KeyFigure]:
    yield from _quality(run)
    yield _in_the_model(run)
    yield from _kept(run)
    yield from _costs(run)


def tokens_per_second(run: Gathered) -> float | None:
    """Over all invocations: of their slowest cells."""
    seconds = sum(one.training_s for one in run.invocations)
    rows = sum(one.rows_trained for one in run.invocations)
    return rows / seconds if seconds and rows else None


def seconds_of(run: Gathered) -> float | None:
    """Of all invocations whose end, or last sign, is known."""
    known = [one.seconds for one in run.invocations if one.seconds is not None]
    return sum(known) if known else None


def mean_fvu(run: Gathered, name: str = "fvu") -> float | None:
    """Over ordinary rows of all that are done."""
    known = [one["ordinary"][name] for one in run.evaluated.values()]
    return sum(known) / len(known) if known else None


def _wrong(run: Gathered) -> Iterator[str]:
    for rule in RULES:
        if found := [run.label(id) for id, names in run.broken.items() if rule.name in names]:
            yield f"{few(found, len(run.rows))}: {rule.what}. Change: {rule.advice}."
    for row in run.rows:
        if row.state == "failed":
            yield f"{run.label(row.id)} stopped: {row.failure}"


def _unfinished(run: Gathered, open_ones: int) -> Iterator[str]:
    step, state = run.step, run.state
    at = f"step {step:,} of {run.steps:,}"
    if state == "running":
        yield f"Training goes on: {at}. This page shows what was known when it was written."
    elif open_ones:
        words = {"prepared": "has not begun to train", "killed": "was killed",
                 "stopped": "was stopped"}.get(state, "ended")  # fmt: skip
        yield f"The run {words} at {at}; the same command continues it."


def _quality(run: Gathered) -> Iterator[KeyFigure]:
    mean, ridge = mean_fvu(run), mean_fvu(run, "fvu_ridge")
    if mean is None or ridge is None:
        yield KeyFigure("mean FVU", "–", "nothing is measured yet", NONE)
        return
    note = f"a linear map: {ridge:.3f}"
    yield KeyFigure("mean FVU", f"{mean:.3f}", note, BAD if mean > ridge else "")


def _in_the_model(run: Gathered) -> KeyFigure:
    name = "CE +, all together"
    splice = run.splice or {}
    if not (joint := splice.get("joint")):
        return KeyFigure(name, "–", splice.get("joint_problem") or "not measured", NONE)
    recovered = joint["ce_recovered_zero"]
    note = f"nats; {recovered:.3f} recovered" if recovered is not None else "nats"
    error = joint.get("ce_increase_se")
    return KeyFigure(name, f"{joint['ce_increase']:.3f}", f"±{error:.3f} {note}" if error else note)


def _kept(run: Gathered) -> Iterator[KeyFigure]:
    ones = run.evaluated
    if not ones:
        return
    off = {id: one["ordinary"]["l0"] / one["k"] - 1 for id, one in ones.items()}
    id = max(off, key=lambda id: abs(off[id]))
    note = f"{run.label(id)}: L0 {ones[id]['ordinary']['l0']:.1f}, k {ones[id]['k']}"
    mood = BAD if abs(off[id]) > OFF_K else ""
    yield KeyFigure("L0 off k, at most", f"{100 * abs(off[id]):.1f} %", note, mood)
    id = max(ones, key=lambda id: ones[id]["dead_share"])
    mean = sum(one["dead_share"] for one in ones.values()) / len(ones)
    mood = BAD if "dead" in run.broken[id] else ""
    note = f"{run.label(id)}; mean {100 * mean:.1f} %"
    yield KeyFigure("dead, at most", f"{100 * ones[id]['dead_share']:.1f} %", note, mood)


def _costs(run: Gathered) -> Iterator[KeyFigure]:
    rate, seconds = tokens_per_second(run), seconds_of(run)
    rows = sum(one.rows_trained for one in run.invocations)
    if rate is not None:
        yield KeyFigure("tokens/s", f"{rate:,.0f}", f"{rows:,} rows, the whole suite")
    if seconds is not None:
        count = len(run.invocations)
        yield KeyFigure("time", clock(seconds), f"in {count} invocation{'s' * (count != 1)}")
