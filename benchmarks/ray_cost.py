"""What Ray costs: the same manifest through `--backend local` and through Ray, in turns.

    python benchmarks/ray_cost.py [MANIFEST] [--rounds 3] [--root FOLDER] [--goals]

Every run is a process of its own, as a user starts it; a short one, which unpacks the model, is not
counted. Prints medians, and the median of the ratios within a round: machines slow down and
recover. --goals: exit 1 where Ray missed what is asked of it.
After start-up: from the first step to the end of the process, with Ray's own end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("mtc-orchestrate"))
FIRST_STEP_S, DRIVER_SHARE, COST = 25.0, 0.03, 1.05
ROWS = (
    ("whole", "s, the whole command"),
    ("first_step", "s, from the command to the first step"),
    ("after", "s, after start-up"),
    ("training", "s, forward, steps, checkpoints and waits"),
    ("waits", "s, the trainer had nothing to do"),
    ("driver_share", "of a core, the driver while it trained"),
    ("driver_gib", "GiB resident, driver"),
    ("trainer_gib", "GiB resident, trainer (local: the driver itself)"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", nargs="?", default="manifests/quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", type=Path, help="keep the runs here")
    parser.add_argument("--goals", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = args.root or Path(scratch)
        run(args.manifest, root, "warm-up", "local", "train.tokens=8192")
        measured: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
        for number in range(args.rounds):
            # Each goes first every other time: a machine that slows down favours neither.
            for backend in sorted(measured, reverse=number % 2 == 1):
                figures = run(args.manifest, root, f"{backend}-{number}", backend)
                measured[backend].append(figures)
                print(backend, {name: round(value, 3) for name, value in figures.items()})
    local, ray = (medians(measured[backend]) for backend in ("local", "ray"))
    ratios = medians(
        [ratio(*pair) for pair in zip(measured["ray"], measured["local"], strict=True)]
    )
    print(f"\nmedians of {args.rounds}\n{'local':>9} {'ray':>9} {'ratio':>7}")
    for name, meaning in ROWS:
        print(f"{local[name]:9.3f} {ray[name]:9.3f} {ratios[name]:7.3f}  {meaning}")
    return check(ray, ratios["after"]) if args.goals else 0


def run(manifest: str, root: Path, name: str, backend: str, *overrides: str) -> dict[str, float]:
    """One run: what it took."""
    command = [COMMAND, "run", manifest, "--root", str(root)]
    began = time.monotonic()
    sets = [word for override in (f"name={name}", *overrides) for word in ("--set", override)]
    subprocess.run(
        [*command, "--backend", backend, *sets],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    whole = time.monotonic() - began
    recorded = json.loads((root / name / "invocations" / "0001.end.json").read_text())
    return figures(whole, recorded)


def figures(whole: float, recorded: dict[str, Any]) -> dict[str, float]:
    seconds, driver = recorded["seconds"], recorded["driver"]
    waits = seconds.get("wait", 0.0)
    return {
        "whole": whole,
        "first_step": recorded["first_step_s"],
        "after": whole - recorded["first_step_s"],
        "training": waits + sum(seconds[stage] for stage in ("forward", "train", "checkpoint")),
        "waits": waits,
        "driver_share": driver["training_cpu_share"],
        "driver_gib": driver["resident_bytes"] / 2**30,
        "trainer_gib": max(recorded["resident_bytes"].values()) / 2**30,
    }


def ratio(ray: dict[str, float], local: dict[str, float]) -> dict[str, float]:
    return {name: ray[name] / local[name] for name in ray}


def medians(measured: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in measured) for name, _ in ROWS}


def check(ray: dict[str, float], cost: float) -> int:
    goals = [
        (f"first step within {FIRST_STEP_S:.0f} s", ray["first_step"] <= FIRST_STEP_S),
        (f"driver below {DRIVER_SHARE:.0%} of a core", ray["driver_share"] < DRIVER_SHARE),
        (f"Ray costs less than {COST - 1:.0%} after start-up", cost < COST),
    ]
    for name, reached in goals:
        print(f"{'ok  ' if reached else 'MISS'}  {name}")
    return 0 if all(reached for _, reached in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
