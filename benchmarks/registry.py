"""How fast the registry answers over many runs: a tree of made-up ones, then each question, cold
and warm.

    python benchmarks/registry.py [--runs 1000] [--transcoders 50] [--tree FOLDER]

Writes the small files that a finished run has (no weights, no tokens), in the same layout; runs
that are there are used as they are. Cold: no cache at the root yet, and an index in every run, as
the driver leaves it. Warm: medians of five. Each command is a process of its own, imports and all.
What the operating system keeps of files in memory is not cleared.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mtc_core.config import TranscoderSpec
from mtc_core.sites import Site
from orchestrator.registry.index import rebuild
from orchestrator.registry.root_cache import NAME

GROUPS, KS, BEGAN = (768, 1536, 3072, 6912), (16, 32, 64, 128), 1.7e9
STEPS, BATCH = 1000, 8192
TIMES = 5
CLI = "from orchestrator.cli import main; main()"
ROWS = "from orchestrator.registry.query import rows; rows('.')"
COMMANDS = {
    "list": ["list"],
    "list, of 100 runs": ["list", "--where", "run=run-00*"],
    "list --csv": ["list", "--csv"],
    "best by fvu": ["best"],
    "best by ce of layer 3 and k 64": ["best", "--by", "ce", "--layer", "3", "--where", "k=64"],
    "best --csv --top 0": ["best", "--csv", "--top", "0"],
    "compare of two runs": ["compare", "run-0000", "run-0001"],
}


def specs_of(run: int, count: int) -> list[TranscoderSpec]:
    """A transcoder for each layer, of a suite whose k goes by the run's number."""
    return [
        TranscoderSpec(
            source=Site.at(layer, "resid_mid"),
            target=Site.at(layer, "mlp_out"),
            group_sizes=GROUPS,
            k=KS[run % len(KS)],
            seed=run // len(KS),
        )
        for layer in range(count)
    ]


def write_run(root: Path, number: int, count: int) -> Path:
    """A finished run as its files tell it, but for weights and tokens."""
    run = root / f"run-{number:04d}"
    specs = specs_of(number, count)
    ids = [spec.id for spec in specs]
    text = {"path": "corpus", "context_tokens": 128, "holdout_tokens": 65536}
    train = {"tokens": STEPS * BATCH, "batch_tokens": BATCH, "extreme": "mask"}
    _write(run / "resolved.json", {
        "name": run.name, "seed": 0, "model": {"name": "gpt2"}, "data": text, "train": train,
        "resources": {"threads": 2}, "pins": {"model": "sha256:1", "provider": "hf"},
        "specs": {spec.id: spec.to_dict() for spec in specs},
    })  # fmt: skip
    _write(run / "plan.json", {"transcoders": [{"id": i, "d_in": 768, "d_out": 768} for i in ids]})
    rows = [{"id": id, "state": "done", "step": STEPS, "fvu": 0.2, "l0": 32.0} for id in ids]
    _write(run / "status.json", {
        "state": "done", "phase": "done", "steps": STEPS, "step": STEPS, "host": "h", "pid": 1,
        "process_started": 1.0, "updated": BEGAN, "tokens_per_second": 2000.0 + number,
        "transcoders": rows,
    })  # fmt: skip
    _write(run / "invocations" / "0001.begin.json", {"number": 1, "began": BEGAN, "host": "h"})
    _write(run / "invocations" / "0001.end.json", {
        "number": 1, "ended": BEGAN + 60, "outcome": "done", "exit_code": 0,
    })  # fmt: skip
    for layer, spec in enumerate(specs):
        _write_transcoder(run / "transcoders" / spec.id, spec, _fvu(number, layer))
    spliced = {spec.id: _splice(_fvu(number, layer)) for layer, spec in enumerate(specs)}
    _write(run / "evaluations" / "test" / "splice.json", {
        "version": 1, "weights": {id: _sha(id) for id in ids}, "tokens": 1024,
        "ce_clean": 3.3,
        "transcoders": spliced, "joint": None, "left_out": {}, "text": {"path": None},
    })  # fmt: skip
    return run


def _fvu(number: int, layer: int) -> float:
    return 0.1 + (number * 7919 + layer * 104729) % 10007 / 20014


def _sha(id: str) -> str:
    return id[-8:] * 8


def _write_transcoder(folder: Path, spec: TranscoderSpec, fvu: float) -> None:
    by_prefix = [fvu + 0.05 * i for i in (3, 2, 1, 0)]
    line = {"step": STEPS, "tokens": STEPS * BATCH, "loss": fvu, "fvu": fvu, "l0": spec.k + 0.1,
            "fvu_by_prefix": by_prefix, "dead_share": 0.02}  # fmt: skip
    _write(folder / "config.json", {"id": spec.id, **spec.to_dict()})
    (folder / "metrics.jsonl").write_text(f"{json.dumps(line)}\n" * 20)
    ordinary = {
        "rows": 32000, "fvu": fvu, "fvu_by_prefix": by_prefix, "fvu_bias_only": 1.0,
        "fvu_ridge": fvu + 0.05, "cosine_by_prefix": [0.9] * 4, "l0": spec.k + 0.1,
        "never_fired_share": 0.1, "nonzeros_by_group": [0.4, 0.3, 0.2, 0.1],
    }  # fmt: skip
    _write(folder / "evaluation.json", {
        "id": spec.id, "ordinary": ordinary, "all": {**ordinary, "fvu": fvu + 0.01}, "k": spec.k,
        "extreme_row_share": 0.001, "extreme_variance_share": 0.02, "dead_share": 0.02,
        "dead_after_tokens": 1000,
    })  # fmt: skip
    _write(folder / "final" / "sha256.json", {"weights.safetensors": _sha(spec.id)})
    step = folder / "checkpoints" / f"step-{STEPS:09d}"
    _write(step / "facts.json", {"step": STEPS, "metrics_bytes": 20})
    _write(step / "sha256.json", {"state.safetensors": _sha(spec.id)})


def _splice(fvu: float) -> dict[str, Any]:
    figures = {"ce_increase": fvu / 4, "ce_recovered_zero": 1 - fvu / 8, "kl": fvu / 3,
               "ce_recovered_mean": 1 - fvu / 7, "top1_agreement": 1 - fvu / 2}  # fmt: skip
    return {**figures, "ce_increase_se": 0.01, "source": "live", "by_prefix": [figures] * 4,
            "extreme_left": figures}  # fmt: skip


def _write(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def build(root: Path, runs: int, transcoders: int) -> None:
    """The tree, each run with its index."""
    for number in range(runs):
        if not (root / f"run-{number:04d}" / "index.sqlite").exists():
            rebuild(write_run(root, number, transcoders))


def seconds(tree: Path, command: list[str]) -> tuple[float, float]:
    """Wall and processor time of a command in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", *command], cwd=tree, check=True, stdout=subprocess.PIPE)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(tree: Path) -> None:
    """Print the times of every command, cold and warm."""
    commands = {name: [CLI, *words, "--root", "."] for name, words in COMMANDS.items()}
    commands["rows, in Python"] = [ROWS]
    (tree / NAME).unlink(missing_ok=True)
    wall, cpu = seconds(tree, commands["list"])
    print(f"cold: list {wall:.2f} s ({cpu:.2f} s of processor time)")
    for run in list(tree.glob("run-*"))[:10]:  # as an eval would
        (run / "evaluations" / "test" / ".probe").touch()
    wall, cpu = seconds(tree, commands["list"])
    print(f"10 runs have changed: list {wall:.2f} s ({cpu:.2f} s)")
    for name, command in commands.items():
        found = [seconds(tree, command) for _ in range(TIMES)]
        wall, cpu = (statistics.median(times) for times in zip(*found, strict=True))
        print(f"warm: {name} {wall:.2f} s ({cpu:.2f} s)", flush=True)
    wall, cpu = seconds(tree, [CLI, "list", "--json", "--root", "."])
    print(f"list --json, every figure of every run: {wall:.2f} s ({cpu:.2f} s)")
    print(f"{NAME}: {(tree / NAME).stat().st_size / 1e6:.1f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--transcoders", type=int, default=50)
    parser.add_argument("--tree", type=Path, help="where to build it, or where it is")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = args.tree or Path(folder)
        began = time.perf_counter()
        build(tree, args.runs, args.transcoders)
        built = time.perf_counter() - began
        print(f"{args.runs} runs of {args.transcoders} transcoders each, built in {built:.0f} s")
        measure(tree)
    return 0


if __name__ == "__main__":
    sys.exit(main())
