"""What peers.py has measured, in tables, and which goals were reached."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peer_runs import OURS, SAELENS, SPARSIFY

Measured = Mapping[str, Any]
DTYPES = ("float32", "bfloat16")
# Of CPUs: tokens/s of ours over theirs, and the fraction of the matrix products' own rate.
RATIOS = {"float32": {SPARSIFY: 1.75, SAELENS: 6.5}, "bfloat16": {SPARSIFY: 2.7}}
STRETCH = {"float32": {SPARSIFY: 2.0, SAELENS: 8.0}, "bfloat16": {}}
BOUND_FRACTION = {"float32": 0.70}
ON_A_GPU: Mapping[str, float] = {SPARSIFY: 1.0, SAELENS: 1.0}


def runs_of(measured: Measured, tool: str, dtype: str | None = None) -> list[Mapping[str, Any]]:
    """Of the rounds, in their order. dtype: if not given, the one that the tool is compared in."""
    float32 = tool != OURS and on_cpu(measured)
    dtype = dtype or ("float32" if float32 else our_dtype(measured))
    return [
        outcome
        for outcome in measured["outcomes"]
        if outcome["run"]["tool"] == tool and outcome["run"]["dtype"] == dtype
    ]


def on_cpu(measured: Measured) -> bool:
    return measured["workload"]["device"] == "cpu"


def our_dtype(measured: Measured) -> str:
    return measured["workload"]["dtype"]


def rates(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return [run["tokens_per_second"] for run in runs]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Within rounds: a machine slows down and recovers."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def goals(measured: Measured) -> list[dict[str, Any]]:
    """Those that can be told by what was run. Stretch goals are reported and never missed."""
    found = []
    dtype, ours = our_dtype(measured), rates(runs_of(measured, OURS))

    def add(name: str, value: float, wanted: float, stretch: bool = False) -> None:
        reached = value >= wanted
        told = {"goal": name, "value": value, "wanted": wanted, "stretch": stretch}
        found.append({**told, "reached": reached or stretch, "met": reached})

    cpu = on_cpu(measured)
    tables = [(RATIOS[dtype], False), (STRETCH[dtype], True)] if cpu else [(ON_A_GPU, False)]
    for table, stretch in tables:
        for tool, wanted in table.items():
            theirs = rates(runs_of(measured, tool))
            if ours and theirs:
                add(f"tokens/s over {tool}", median(ratios(ours, theirs)), wanted, stretch)
    if ours and cpu and dtype in BOUND_FRACTION:
        fraction = median(ratios(ours, measured["bounds"]))
        add("fraction of the matrix products alone", fraction, BOUND_FRACTION[dtype])
    for tool in (SPARSIFY, SAELENS):
        if ours and cpu and (runs := runs_of(measured, tool)):
            less = median(memory(runs)) / median(memory(runs_of(measured, OURS)))
            add(f"memory of {tool} over ours", less, 1.0)
    for kind in ("default", "best"):
        for rows in ("ordinary", "all"):
            if pair := quality_pair(measured, kind):
                better = mean_of(pair[1], rows, "fvu") / mean_of(pair[0], rows, "fvu")
                add(f"FVU of sparsify over ours, {rows} rows, {kind} lr", better, 1.0)
    return found


def quality_pair(
    measured: Measured, kind: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Ours and sparsify's: at default learning rates, or at the best of those tried."""
    chosen = []
    for tool in (OURS, SPARSIFY):
        trials = [trial for trial in measured["quality"] if trial["tool"] == tool]
        if kind == "default":
            trials = [trial for trial in trials if trial["default"]]
        elif len(trials) < 2:
            return None
        if not trials:
            return None
        chosen.append(min(trials, key=lambda trial: mean_of(trial, "ordinary", "fvu")))
    return chosen[0], chosen[1]


def mean_of(trial: Mapping[str, Any], rows: str, figure: str) -> float:
    return statistics.fmean(layer[rows][figure] for layer in trial["layers"])


def memory(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return [run["peak_pss_bytes"] / 2**30 for run in runs]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def print_report(measured: Measured) -> None:
    m = measured["machine"]
    versions = ", ".join(f"{name} {said}" for name, said in m["versions"].items())
    where = m["gpu"] or f"{m['cores']} cores, {m['threads']} threads each"
    print(f"\n{m['cpu']}, {where}; Python {m['python']}, ")
    print(f"{versions}; load {m['load_at_start']:.1f} before, {m['load_at_end']:.1f} after")
    _print_speed(measured)
    _print_quality(measured)
    for goal in measured["goals"]:
        mark = "ok  " if goal["met"] else "    " if goal["stretch"] else "MISS"
        kind = ", stretch" if goal["stretch"] else ""
        print(f"{mark}  {goal['goal']}: {goal['value']:.2f} (goal {goal['wanted']:g}{kind})")


def _print_speed(measured: Measured) -> None:
    ours = rates(runs_of(measured, OURS))
    on_card = "" if on_cpu(measured) else f"  {'on the card':>11}"
    head = f"{'tokens/s':>9}  {'from':>7} {'to':>7}  {'ours is':>8}  {'peak GiB':>8}{on_card}"
    print(f"\n{'':<28}{head}")
    asked = [(tool, dtype) for dtype in DTYPES for tool in (SPARSIFY, SAELENS)]
    for tool, dtype in [(OURS, our_dtype(measured)), *asked]:
        if not (runs := runs_of(measured, tool, dtype)):
            continue
        said = runs[0]["facts"].get("version", measured["machine"]["versions"]["mtc-orchestrator"])
        _print_rate(f"{tool} {said} {dtype}", rates(runs), ours, _memory_columns(runs))
    _print_rate("matrix products alone", measured["bounds"], ours, "")


def _memory_columns(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of the processes, and of the card where there is one that tells."""
    cards = [run["peak_card_bytes"] for run in runs]
    told = f"  {median(cards) / 2**30:11.2f}" if all(size is not None for size in cards) else ""
    return f"{median(memory(runs)):8.2f}{told}"


def _print_rate(name: str, found: Sequence[float], ours: Sequence[float], memory: str) -> None:
    over = f"{median(ratios(ours, found)):7.2f}x" if ours and ours != found else " " * 8
    middle = f"{median(found):9,.0f}"
    print(f"{name:<28}{middle}  {min(found):>7,.0f} {max(found):>7,.0f}  {over}  {memory}")


def _print_quality(measured: Measured) -> None:
    """Held-out figures by layer, of every trial."""
    if not measured["quality"]:
        return
    for rows in ("ordinary", "all"):
        print(f"\nFVU, {rows} rows{'lr':>18}  {'L0':>5}  {'mean':>6}  by layer")
        for trial in measured["quality"]:
            name = f"{trial['tool']}{' (default)' if trial['default'] else ''}"
            by_layer = " ".join(f"{layer[rows]['fvu']:.3f}" for layer in trial["layers"])
            l0, fvu = mean_of(trial, rows, "l0"), mean_of(trial, rows, "fvu")
            print(f"{name:<22}{trial['lr']:10.2e}  {l0:5.1f}  {fvu:6.3f}  {by_layer}")
    print()
