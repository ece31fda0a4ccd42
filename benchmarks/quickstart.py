"""Did the quickstart reach what the README says of it?

    mtc-orchestrate run manifests/quickstart.yaml && python benchmarks/quickstart.py runs/quickstart

Prints each goal with the figure that the run measured; exit 1 if one is missed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MEAN_FVU, WORST_FVU, TRAIN_SECONDS, L0_TOLERANCE = 0.38, 0.60, 150.0, 0.05
DRIVER_SHARE = 0.03


def main() -> int:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart")
    rows = [json.loads(path.read_text()) for path in run.glob("transcoders/*/evaluation.json")]
    ended = json.loads((run / "invocations" / "0001.end.json").read_text())
    seconds, driver = ended["seconds"], ended["driver"]["training_cpu_share"]
    fvus = [row["ordinary"]["fvu"] for row in rows]
    by_prefix = [row["ordinary"]["fvu_by_prefix"] for row in rows]
    worst_l0 = max(abs(row["ordinary"]["l0"] / row["k"] - 1) for row in rows)
    training = sum(seconds.get(stage, 0.0) for stage in ("forward", "train", "checkpoint", "wait"))
    mean, worst = sum(fvus) / len(fvus), max(fvus)
    goals = [
        ("four transcoders finished", len(rows) == 4, f"{len(rows)}"),
        (f"mean FVU at most {MEAN_FVU}", mean <= MEAN_FVU, f"{mean:.3f}"),
        (f"no FVU above {WORST_FVU}", worst <= WORST_FVU, f"{worst:.3f}"),
        ("no prefix worse than the one before", all(map(_falls, by_prefix)), str(by_prefix)),
        (f"L0 within {L0_TOLERANCE:.0%} of k", worst_l0 <= L0_TOLERANCE, f"{worst_l0:.1%} off"),
        (f"training within {TRAIN_SECONDS:.0f} s", training <= TRAIN_SECONDS, f"{training:.0f} s"),
        (f"driver below {DRIVER_SHARE:.0%} of a core", driver < DRIVER_SHARE, f"{driver:.1%}"),
    ]
    for name, reached, figure in goals:
        print(f"{'ok  ' if reached else 'MISS'}  {name}: {figure}")
    return 0 if all(reached for _, reached, _ in goals) else 1


def _falls(fvus: list[float]) -> bool:
    return fvus == sorted(fvus, reverse=True)


if __name__ == "__main__":
    sys.exit(main())
