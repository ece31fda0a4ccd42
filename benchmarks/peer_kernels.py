"""What a step does with the activations that were kept: our kernels beside those of others.

    python -m benchmarks.peer_kernels [--shape gpt2] [--kernels triton torch] [--beside FILE ...]
    python -m benchmarks.peer_kernels --shape peers --device cpu

One problem for all: k activations of each of B rows, their latents, sources and targets. From these
to the mean squared error, the gradients of both weight matrices and biases, and Adam's step on
them, with decoder rows of unit norm. FILEs of others, which need torch and Triton alone:

    xformers.py              embedding bags       sparsify (PyPI: eai-sparsify)
    kernels.py               sparse products      github.com/openai/sparse_autoencoder
    topk_kernels.py          TopK loss            flex-sae (huggingface.co/kernels, EMNLP 2025)
    hierarchical_kernels.py  loss of all k prefixes, as above

Where others have no gradient of the encoder they take torch's `index_add_`, as sparsify does; Adam
is torch's, fused. They take turns, and medians are quoted: `decoder` is the loss, the gradients of
the decoder and of the activations alone; `apart` is how far the first Adam moments of the weights
are from those of the first line with as many prefixes. On a CPU Triton's kernels run in
its interpreter alone: TRITON_INTERPRET=1 and --shape tiny show that they agree, and no time.
"""

# Not kernels.py: beside a script Transformers would take it for the package of that name.

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import benchmarks.suite  # noqa: F401  before torch: it sets how its threads wait

import torch  # isort: skip
from torch import Tensor

from benchmarks.gpu_bound import seconds_of
from benchmarks.gpu_workload import machine
from benchmarks.kernel_problem import SHAPES, Ours, Problem
from benchmarks.kernels_of_others import NotTheirs, Others, known_decoders, torch_decoder
from mtc_core.errors import MtcError

FIRST = "torch's embedding bag"
GROUPS = {4, 8}  # of ours, beside as many as others have


class Step(Protocol):
    """Everything after a selection. prefixes: that the loss is a mean of; activations are in the
    order of their latents, and groups and prefixes of them of one size."""

    prefixes: int

    def decoder(self) -> None: ...

    def whole(self) -> None: ...

    def first_moments(self) -> dict[str, Tensor]:
        """Adam's, of the weight matrices."""
        ...


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--kernels", nargs="+", choices=("triton", "torch", "numba"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--beside", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5, help="in a row, for each reading")
    parser.add_argument("--json", help="write all figures there")
    args = parser.parse_args(words)
    for option in ("rounds", "calls"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} {getattr(args, option)}: must be 1 or more")
    args.kernels = args.kernels or (["numba"] if args.device == "cpu" else ["triton", "torch"])
    return args


def steps(args: argparse.Namespace) -> dict[str, Step]:
    """By name. Raises NotTheirs, MtcError."""
    problem = Problem.of(SHAPES[args.shape], args.device)
    dtype = getattr(torch, args.dtype)
    made: dict[str, Step] = {FIRST: Others(torch_decoder(), problem, dtype)}
    for file in args.beside:
        for name, decoder in known_decoders(file).items():
            made[name] = Others(decoder, problem, dtype)
    for groups in sorted({step.prefixes for step in made.values()} | GROUPS):
        for kernels in args.kernels:
            prefixes = "1 prefix" if groups == 1 else f"{groups} prefixes"
            ours = Ours(problem, kernels, args.dtype, groups)
            made[f"ours, {ours.name}, {prefixes}"] = ours
    return made


def measure(made: dict[str, Step], rounds: int, calls: int, device: str) -> dict[str, Any]:
    """Milliseconds of each, in turns; a step that fails says why and is left out."""
    found: dict[str, Any] = {}
    wanted: dict[int, dict[str, Tensor]] = {}
    for name, step in made.items():
        try:
            step.whole()  # compiles
            moments = step.first_moments()
            apart = _apart(moments, wanted.setdefault(step.prefixes, moments))
            found[name] = {"apart": apart, "decoder": [], "whole": []}
            step.decoder()
        except Exception as error:  # of somebody else's code, which may not know this device
            found[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    for _ in range(rounds):
        for name, one in found.items():
            if "failed" not in one:
                for part in ("decoder", "whole"):
                    one[part].append(_milliseconds(getattr(made[name], part), calls, device))
    return found


def _milliseconds(work: Any, calls: int, device: str) -> float:
    def several() -> None:
        for _ in range(calls):
            work()

    return 1e3 * seconds_of(several, device) / calls


def _apart(moments: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    return max(
        float((moments[name] - other).norm() / other.norm().clamp(min=1e-12))
        for name, other in wanted.items()
    )


def report(found: dict[str, Any]) -> None:
    print(f"{'ms':<44}{'decoder':>9}{'whole':>9}{'beside the first':>19}{'apart':>10}")
    first = found[FIRST]
    for name, one in found.items():
        if "failed" in one:
            print(f"{name:<44}  failed: {one['failed']}")
            continue
        decoder, whole = (statistics.median(one[part]) for part in ("decoder", "whole"))
        times = [a / b for a, b in zip(first.get("whole", []), one["whole"], strict=False)]
        faster = f"{statistics.median(times):.2f} x" if times else ""  # the first may have failed
        print(f"{name:<44}{decoder:9.2f}{whole:9.2f}{faster:>19}{one['apart']:10.1e}")


def main(words: Sequence[str] | None = None) -> int:
    args = arguments(None if words is None else list(words))
    if args.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device here; --shape peers --device cpu measures what a CPU can do")
        return 2
    try:
        made = steps(args)
    except (NotTheirs, MtcError) as error:
        print(f"error: {error}")
        return 2
    about = machine(args.device)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{args.shape}: {SHAPES[args.shape]}, {args.dtype}")
    found = measure(made, args.rounds, args.calls, args.device)
    report(found)
    if args.json:
        Path(args.json).write_text(json.dumps({"machine": about, "kernels": found}, indent=1))
    return int(any("failed" in one for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
