"""What a device allows, by the cost model of a suite: matrix products at the rate that it reaches
here, bytes at the rate of a copy, added up without overlap.

L transcoders · F latents · d width of both sites (a mean) · B rows of a step · m groups
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.gpu_workload import CONTEXT, RandomSuite
from mtc_core.model.model_shape import ModelShape
from orchestrator.planning.costs import forward_flops

COPIED_BYTES = 2**30
ADAM_BYTES = 30  # moved for each parameter: weight and two moments read and written, and a gradient


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured: FLOP/s of products in the model's and in the trainers' dtype, bytes/s of a copy."""

    model: float
    compute: float
    bytes: float


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Of one call, until the device has done it."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def measure_rates(
    rows: int, d_in: int, d_sae: int, model: torch.dtype, compute: torch.dtype, device: str
) -> Rates:
    """The best of several, on the encoder's shape."""

    def products(dtype: torch.dtype) -> float:
        x = torch.randn(rows, d_in, device=device).to(dtype)
        W = torch.randn(d_sae, d_in, device=device).to(dtype)
        return 2 * rows * d_in * d_sae / min(seconds_of(lambda: x @ W.T, device) for _ in range(8))

    size = COPIED_BYTES if device != "cpu" else COPIED_BYTES // 16
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    bandwidth = 2 * size / min(seconds_of(lambda: copy.copy_(source), device) for _ in range(8))
    return Rates(products(model), products(compute), bandwidth)


def bounds(suite: RandomSuite, shape: ModelShape, rates: Rates) -> dict[str, float]:
    """Least seconds of one step of the whole suite, by stage."""
    B, d = suite.train.batch_tokens, shape.d_model
    width = 2 if suite.train.dtype == "bfloat16" else 4
    forward = B * forward_flops(shape, shape.n_layers, CONTEXT) / rates.model
    found = dict.fromkeys(("forward", "encode", "select", "rows", "update"), 0.0)
    for spec in suite.specs:
        F, k, m = spec.d_sae, spec.k, len(spec.group_sizes)
        gathered = B * k * d * width / rates.bytes
        found["encode"] += 2 * B * d * F / rates.compute
        found["select"] += 2 * B * F * width / rates.bytes
        found["rows"] += gathered + 10 * B * m * d / rates.bytes
        # dW_dec, the gradient of the activations, and dW_enc gather as much as decoding does.
        found["update"] += 3 * gathered + ADAM_BYTES * 2 * F * d / rates.bytes
    return {**found, "forward": forward}
