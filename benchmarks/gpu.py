"""Speed of a whole suite on a GPU, beside what the GPU allows. No Ray, no download.

    python -m benchmarks.gpu [--shape gpt2|gemma-2-2b] [--kernels triton torch] [--dtype bfloat16]
    python -m benchmarks.gpu --shape tiny --device cpu --kernels torch --dtype float32

Random weights of a model's shape and random tokens, through the `hf` provider and the product's own
trainers: one transcoder for each MLP, four groups, d_sae 16 x d_model, k 64, 8,192 rows a step.
Kernels take turns, block after block, and medians are quoted: tokens/s of the suite with its
forward; milliseconds of each stage in a step, beside the least that measured rates of products and
copies allow (gpu_bound.py); peak memory; and how far the first kernels are from the last after
the same steps. Kernels that take turns are all in memory: gemma-2-2b takes some 62 GB for each.
--goals: exit 1 below 300,000 tokens/s (gpt2) or 26,000 (gemma-2-2b).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from functools import partial
from typing import Any

import benchmarks.suite  # noqa: F401  before torch: it sets how its threads wait

import torch  # isort: skip
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_bound import bounds, measure_rates, seconds_of
from benchmarks.gpu_workload import SHAPES, RandomSuite, machine, random_model
from mtc_core.errors import MtcError

GOALS = {"gpt2": 300_000, "gemma-2-2b": 26_000}  # tokens/s on one H200
STAGES = ("forward", "scale", "encode", "select", "rows", "aux", "update", "counters")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--kernels", nargs="+", choices=("triton", "torch", "numba"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--model-dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--blocks", type=int, default=5, help="measured, of 4 steps each")
    parser.add_argument("--json", help="write all figures there")
    parser.add_argument("--goals", action="store_true")
    args = parser.parse_args(words)
    args.kernels = args.kernels or (["torch"] if args.device == "cpu" else ["triton", "torch"])
    args.model_dtype = args.model_dtype or args.dtype
    return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
    shape = SHAPES[args.shape]
    model_dtype = getattr(torch, args.model_dtype)
    loaded = random_model(shape.model, model_dtype, args.device)
    suites, memory = {}, {}
    for kernels in args.kernels:
        _forget_peak(args.device)
        suites[kernels] = RandomSuite(shape, loaded, kernels, args.dtype, args.device)
        suites[kernels].run_block(1)  # compiles
        memory[kernels] = _peak(args.device)
    apart = _apart(*suites.values()) if len(suites) > 1 else None
    d_sae = loaded.shape.d_model * shape.expansion
    rates = measure_rates(
        shape.batch, loaded.shape.d_model, d_sae, model_dtype, getattr(torch, args.dtype),
        args.device,
    )  # fmt: skip
    seconds: dict[str, list[float]] = {kernels: [] for kernels in suites}
    for b in range(2, args.blocks + 2):
        for kernels, suite in suites.items():
            seconds[kernels].append(seconds_of(partial(suite.run_block, b), args.device))
    return {
        "machine": machine(args.device),
        "shape": args.shape,
        "dtype": args.dtype,
        "transcoders": loaded.shape.n_layers,
        "rates": {"TFLOP/s": rates.compute / 1e12, "TB/s": rates.bytes / 1e12},
        "apart": apart,
        "kernels": {
            kernels: {
                "tokens_per_second": suite.train.block_rows / statistics.median(seconds[kernels]),
                "peak_bytes": memory[kernels],
                "stages_ms": stage_milliseconds(suite, args.blocks + 2, args.device),
                "bounds_ms": {k: 1e3 * s for k, s in bounds(suite, loaded.shape, rates).items()},
            }
            for kernels, suite in suites.items()
        },
    }


def _forget_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int | None:
    """Of all that is alive, earlier suites included; unknown on a CPU."""
    return None if device == "cpu" else torch.cuda.max_memory_allocated()


def _apart(first: RandomSuite, *others: RandomSuite) -> float:
    """Largest relative distance of a weight matrix from that of the last suite."""
    weights, plain = first.weights(), others[-1].weights()
    return max(
        float((weights[name] - wanted).norm() / wanted.norm().clamp(min=1e-12))
        for name, wanted in plain.items()
        if wanted.dim() == 2
    )


def stage_milliseconds(suite: RandomSuite, b: int, device: str) -> dict[str, float]:
    """Of one step, on the device."""
    activities = [ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        suite.run_block(b)
    of = "cpu_time_total" if device == "cpu" else "device_time_total"
    found = {e.key: getattr(e, of) for e in profiler.key_averages() if e.key[:4] == "mtc."}
    steps = suite.train.block_batches
    return {stage: found.get(f"mtc.{stage}", 0.0) / 1e3 / steps for stage in STAGES}


def report(found: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    print(
        f"{found['shape']}: {found['transcoders']} transcoders, {found['dtype']}; products "
        f"{found['rates']['TFLOP/s']:.1f} TFLOP/s, copies {found['rates']['TB/s']:.2f} TB/s"
    )
    for kernels, one in found["kernels"].items():
        memory = "" if one["peak_bytes"] is None else f", peak {one['peak_bytes'] / 2**30:.1f} GiB"
        step = SHAPES[found["shape"]].batch / one["tokens_per_second"]
        least = sum(one["bounds_ms"].values()) / 1e3
        print(
            f"{kernels}: {one['tokens_per_second']:,.0f} tokens/s, {least / step:.2f} of what the "
            f"device allows{memory}"
        )
        total = sum(one["stages_ms"].values())
        for stage, spent in one["stages_ms"].items():
            bound = one["bounds_ms"].get(stage)
            beside = "" if bound is None else f"  at least {bound:8.2f}"
            print(f"  {stage:<9}{spent:9.2f} ms {100 * spent / max(total, 1e-9):5.1f} %{beside}")
    if found["apart"] is not None:
        names = list(found["kernels"])
        print(f"after 4 steps weights of {names[0]} and {names[-1]} differ by {found['apart']:.1e}")


def main(words: list[str] | None = None) -> int:
    args = arguments(words)
    if args.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device here; --shape tiny --device cpu shows that all of this runs")
        return 2
    try:
        found = measure(args)
    except MtcError as error:
        print(f"error: {error}")
        return 2
    report(found)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
    best = max(one["tokens_per_second"] for one in found["kernels"].values())
    return int(args.goals and best < GOALS.get(args.shape, 0))


if __name__ == "__main__":
    sys.exit(main())
