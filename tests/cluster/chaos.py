"""Runs that are killed at random moments, on a cluster of several nodes, and must end with the bits
of a run that nothing befell.

    python -m tests.cluster.chaos --runs 25 --seed 0 --table FILE

Everything random comes from the seed of a run: its topology, who is killed, and when. A run goes on
meanwhile, so that the same seed meets it at about, not exactly, the same places.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harmed import HEAD, Harmed, Kill, Spares
from tests.cluster.nodes import Nodes
from tests.e2e.runs import finals, uninterrupted
from tests.ray.harm import half_written

SOME_STEPS, TRAINING_S = 240, 12.0  # to time, and what a run then has
MOMENTS = {
    "forward": 4,
    "step": 4,
    "checkpoint write": 4,
    "registration": 4,
    "any moment": 3,
    "load": 2,
    "publish": 1,
    "wait for rows": 1,
}
LATE = ("final write", "held-out rows")  # moments of the end
COLUMNS = (
    "seed",
    "topology",
    "kills",
    "invocations",
    "forwards (of them late)",
    "seconds",
    "same bits",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed means. options: `resources`, as --set takes them."""

    options: tuple[str, ...]
    kills: tuple[Kill, ...]

    @classmethod
    def of(cls, seed: int, steps: int) -> Plan:
        """For a run of so many steps."""
        rng = random.Random(seed)
        if rng.random() < 0.2:
            options = ["topology=fused", "cells=2"]
        else:
            producers, cells = rng.randint(1, 2), rng.randint(1, 2)
            options = ["topology=split", f"producers={producers}", f"cells={cells}"]
            options += ["prefetch_steps=1"] * (rng.random() < 0.25)
        victims = ["trainer", "node", "driver"] + ["producer"] * ("fused" not in options[0])
        kills = [_kill(rng, victims, steps) for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.2:
            kills[-1] = Kill(rng.choice(victims), rng.choice(LATE), steps)
        return cls(tuple(options), tuple(kills))


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table. wrong: nothing, or what is."""

    seed: int
    options: tuple[str, ...]
    told: list[str]
    codes: list[int]
    forwards: tuple[int, int]
    seconds: float
    wrong: str

    def cells(self) -> tuple[str, ...]:
        return (
            str(self.seed),
            ", ".join(self.options),
            "; ".join(self.told),
            f"{len(self.codes)} (exit {', '.join(map(str, self.codes))})",
            f"{self.forwards[0]} ({self.forwards[1]})",
            f"{self.seconds:.0f}",
            self.wrong or "yes",
        )


class Series:
    """Runs on one cluster, compared with one reference. Close it at the end."""

    def __init__(self, manifest: Path, reference: Path, steps: int) -> None:
        self._manifest, self._reference, self._steps = manifest, finals(reference), steps
        self._nodes = Nodes(secrets.token_hex(32))
        self._spares = Spares(self._nodes)
        self._nodes.start(HEAD, 1)
        for _ in range(2):
            self._spares.start()
        self._spares.wait()

    def run(self, seed: int, root: Path) -> Result:
        """Harm one run as its seed wants it."""
        plan, began = Plan.of(seed, self._steps), time.monotonic()
        options = [word for key in plan.options for word in ("--set", f"resources.{key}")]
        rng = random.Random(f"{seed} while it runs")
        harmed = Harmed(self._nodes, self._spares, self._manifest, root, options, rng)
        try:
            for kill in plan.kills:
                harmed.suffer(kill, self._steps)
            last = harmed.to_its_end()
            wrong = "" if last.code == 0 else f"exit {last.code}"
            wrong = wrong or self._differing(harmed.folder)
        finally:
            for number, ended in enumerate(harmed.ended, start=1):
                (root / f"said-{number}.txt").write_text(repr(ended))
            harmed.end()
        unclean = [n for n, ended in enumerate(harmed.ended, start=1) if not ended.clean]
        return Result(
            seed,
            plan.options,
            harmed.told,
            [ended.code for ended in harmed.ended],
            _forwards(harmed.folder),
            time.monotonic() - began,
            wrong or (f"unclean output of {unclean}" if unclean else ""),
        )

    def rest(self) -> None:
        """Until the cluster is as it was at the beginning."""
        self._spares.wait()

    def close(self) -> None:
        self._nodes.down()

    def _differing(self, folder: Path) -> str:
        found = finals(folder)
        names = found.keys() | self._reference.keys()
        other = sorted(name for name in names if found.get(name) != self._reference.get(name))
        left = [path.name for path in half_written(folder)]
        return f"NO: {', '.join(other)}" if other else f"left: {', '.join(left)}" if left else ""


@contextmanager
def series(base: Path, model: Path) -> Iterator[Series]:
    """A cluster while inside, for runs of a model."""
    one = Series(*_reference(base, model))
    try:
        yield one
    finally:
        one.close()


def _kill(rng: random.Random, victims: Sequence[str], steps: int) -> Kill:
    (moment,) = rng.choices([*MOMENTS], [*MOMENTS.values()])
    # A load comes once at the beginning, and anew after a kill.
    at_once = moment == "load" or rng.random() < 0.25
    stride = 0 if at_once else rng.randint(1, steps // 6)
    return Kill(rng.choice(victims), moment, stride, hold_s=rng.choice([0, 0, 1, 3]))


def _forwards(folder: Path) -> tuple[int, int]:
    """Passes of invocations that ended by themselves, and how many of them were for laggards."""
    counts = [
        counted
        for path in folder.glob("invocations/*.end.json")
        for counted in json.loads(path.read_text())["forwards"].values()
    ]
    return sum(c.get("passes", 0) for c in counts), sum(c.get("late_passes", 0) for c in counts)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--table", type=Path, required=True, help="a Markdown file to write")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline")
    base, wrong = Path(tempfile.mkdtemp(prefix="mtc-chaos-")), 0
    given.table.write_text(_line(COLUMNS) + _line(["---"] * len(COLUMNS)))
    with series(base, _model(base)) as one:
        for seed in range(given.seed, given.seed + given.runs):
            root = base / f"seed-{seed}"
            root.mkdir()
            result = one.run(seed, root)
            with given.table.open("a") as file:
                file.write(_line(result.cells()))
            sys.stdout.write(_line(result.cells()))
            sys.stdout.flush()
            wrong += bool(result.wrong)
            if not result.wrong:
                shutil.rmtree(root)
            one.rest()
    if not wrong:
        shutil.rmtree(base)
    sys.stdout.write(f"{wrong} of {given.runs} went wrong{f': see {base}' if wrong else ''}\n")
    return int(bool(wrong))


def _model(base: Path) -> Path:
    import torch

    from tests.core.tiny_models import save_tiny_model

    torch.set_num_threads(1)
    return save_tiny_model(base / "model", family="llama", n_layers=3)


def _reference(base: Path, model: Path) -> tuple[Path, Path, int]:
    """An uninterrupted run in this process, of about TRAINING_S on this machine: its manifest, its
    folder, its steps. Kills must fit into it."""
    for name in ("timed", "whole"):
        (base / name).mkdir()
    _, timed, _ = uninterrupted(base / "timed", model, tokens=256 * SOME_STEPS)
    ended = json.loads((timed / "invocations" / "0001.end.json").read_text())
    trained_s = sum(ended["seconds"][stage] for stage in ("forward", "train"))
    steps = round(SOME_STEPS / trained_s * TRAINING_S)
    manifest, whole, _ = uninterrupted(
        base / "whole", model, tokens=256 * steps, checkpoint_minutes=0.005
    )
    return manifest, whole, steps


if __name__ == "__main__":
    sys.exit(main())
