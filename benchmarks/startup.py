"""How long one waits: for `--help`, `validate`, `plan`, for a run's first step, for the quickstart.

    python -m benchmarks.startup [MANIFEST] [--rounds 5] [--quickstart] [--goals] [--json F]

Every command is a process of its own, as a user starts it, and they take turns; medians. The runs
are of a few steps, with Ray and its dashboard and without; one that unpacks the model and fills the
caches is not counted. --quickstart: a whole run of MANIFEST, and where its time goes, by its log.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from benchmarks.ray_cost import COMMAND, run

GOALS_S = {"validate": 0.5, "plan": 1.5, "first step with Ray": 25.0}
FEW_ROWS = "train.tokens=8192"
# A line of log.txt begins a part of the run; what comes before the first is the start of Ray.
PARTS = {
    "tokens": "the text, and the model meanwhile",
    "training": "the first block, training",
    "calibrating": "thresholds",
    "testing": "held-out figures, saving",
    "done": "splicing",
    "report": "the report",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", nargs="?", default="manifests/quickstart.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quickstart", action="store_true")
    parser.add_argument("--goals", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run(args.manifest, root, "warm-up", "local", FEW_ROWS)
        rounds = [one_round(args.manifest, root, number) for number in range(args.rounds)]
        found = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        for name, seconds in found.items():
            print(f"{seconds:8.2f} s  {name}")
        if args.quickstart:
            run(args.manifest, root, "quickstart", "ray")
            parts = dict(parts_of((root / "quickstart/log.txt").read_text()))
            print(f"\n{sum(parts.values()):8.1f} s  the whole run, of which")
            for name, seconds in parts.items():
                print(f"{seconds:8.1f} s  {name}")
            found |= parts
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    lacking = list(missed(found))
    for sentence in lacking:
        print(f"missed: {sentence}")
    return int(bool(lacking) and args.goals)


def one_round(manifest: str, root: Path, number: int) -> dict[str, float]:
    return {
        "--help": seconds_of("--help"),
        "validate": seconds_of("validate", manifest),
        "plan": seconds_of("plan", manifest),
        **{
            f"first step {words}": run(manifest, root, f"{backend}-{number}", backend, FEW_ROWS)[
                "first_step"
            ]
            for backend, words in (("ray", "with Ray"), ("local", "in one process"))
        },
    }


def seconds_of(*words: str) -> float:
    began = time.monotonic()
    subprocess.run([COMMAND, *words], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def parts_of(log: str) -> Iterator[tuple[str, float]]:
    """(part, seconds) of a run's log.txt, in order."""
    times: dict[str, datetime] = {}
    for line in log.splitlines():
        stamp, _, said = line.partition(" INFO ")
        if said:
            times.setdefault(said.split(",")[0].split(":")[0], datetime.fromisoformat(stamp))
    begins = {"Ray, or what stands for it": times["start"]}
    begins |= {part: times[word] for word, part in PARTS.items() if word in times}
    ordered = sorted(begins.items(), key=lambda item: item[1])
    ends = [begin for _, begin in ordered[1:]] + [times["end"]]
    for (part, begin), end in zip(ordered, ends, strict=True):
        yield part, (end - begin).total_seconds()


def missed(found: Mapping[str, float]) -> Iterator[str]:
    """Goals that were not reached, a sentence each."""
    for name, most in GOALS_S.items():
        if found[name] > most:
            yield f"{name} took {found[name]:.2f} s, above {most:g}"


if __name__ == "__main__":
    sys.exit(main())
