"""What a transcoder is and how it is trained: frozen values that decide nothing by themselves.

Loads without torch, so that manifests can be checked in a fraction of a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

from mtc_core.errors import ConfigError
from mtc_core.seeds import digest
from mtc_core.sites import Site

Selection = Literal["batchtopk", "topk"]
Extreme = Literal["mask", "bound", "keep"]
ComputeDtype = Literal["float32", "bfloat16"]
Kernels = Literal["torch", "numba", "triton"]

DEAD_AFTER_TOKENS_MAX = 10_000_000
# Learning rates are known for runs of this many steps; shorter runs need higher ones, to a limit.
AUTO_LR_STEPS, AUTO_LR_MOST = 300_000, 16.0
FEWEST_LATENTS = 64  # for each one that is on: one entry costs ten times its part of a product
BY_STEPS = "steps"  # resolved.json of runs whose `auto` learning rates go by their length
EXTREME_FACTOR = 8.0  # times the site's median distance from its mean; maths: extreme rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscoderSpec:
    """One transcoder: what it reads, what it predicts, its sizes. Everything here is identity.

    group_sizes are sizes, not ends: `[768, 1536]` has two groups and 2304 latents.
    prefix_weights are w_0 (bias only), w_1, …, w_m and sum to 1; None means equal over 1..m.
    lr None: see `learning_rate`.
    k_aux None means d_out / 2.
    skip: an affine path W_skip beside the dictionary; part of every prefix, the bias alone too.
    """

    source: Site
    target: Site
    group_sizes: tuple[int, ...]
    k: int
    seed: int = 0
    selection: Selection = "batchtopk"
    prefix_weights: tuple[float, ...] | None = None
    lr: float | None = None
    aux_weight: float = 1 / 32
    k_aux: int | None = None
    skip: bool = False

    def __post_init__(self) -> None:
        problems = list(spec_problems(self))
        if problems:
            raise ConfigError.of(problems)

    @property
    def d_sae(self) -> int:
        return sum(self.group_sizes)

    @property
    def widths(self) -> tuple[int, ...]:
        """Cumulative prefix widths; the last is d_sae."""
        return tuple(accumulate(self.group_sizes))

    def learning_rate(self, steps: int) -> float:
        """`lr`, or what suits a run of so many steps: benchmarks/LOG.md has what was measured."""
        if self.lr is not None:
            return self.lr
        shorter = math.sqrt(AUTO_LR_STEPS / max(1, steps))
        return 2e-4 / math.sqrt(self.d_sae / 2**14) * min(max(1.0, shorter), AUTO_LR_MOST)

    def takes_few(self, extreme: Extreme) -> bool:
        """Whether all that counts of a batch's pre-activations is which are above a cut, and few
        are: then a sieve may tell them (mtc_core/kernels/sieve.py). `bound` ranks extreme rows."""
        few = self.d_sae >= FEWEST_LATENTS * self.k
        return self.selection == "batchtopk" and extreme != "bound" and few

    @property
    def weights(self) -> tuple[float, ...]:
        """w_0, w_1, …, w_m."""
        m = len(self.group_sizes)
        return self.prefix_weights or (0.0, *([1 / m] * m))

    @property
    def id(self) -> str:
        """Readable, padded, and tailed by a hash of everything that tells two specs apart."""
        return f"{self.source.name}-{self.target.name}-{digest(self.to_dict())[:8]}"

    def to_dict(self) -> dict:
        """JSON-able, canonical: equal specs give equal dictionaries. A field younger than the first
        suites is there only where it says something: ids are hashes of this."""
        younger = {"skip": True} if self.skip else {}
        return {
            "source": self.source.hook,
            "target": self.target.hook,
            "group_sizes": list(self.group_sizes),
            "k": self.k,
            "seed": self.seed,
            "selection": self.selection,
            "prefix_weights": list(self.prefix_weights) if self.prefix_weights else None,
            "lr": self.lr,
            "aux_weight": self.aux_weight,
            "k_aux": self.k_aux,
            **younger,
        }

    @classmethod
    def from_dict(cls, data: dict) -> TranscoderSpec:
        """The inverse of `to_dict`."""
        weights = data["prefix_weights"]
        return cls(
            **{
                **data,
                "source": Site.parse(data["source"]),
                "target": Site.parse(data["target"]),
                "group_sizes": tuple(data["group_sizes"]),
                "prefix_weights": tuple(weights) if weights else None,
            }
        )


def spec_problems(spec: TranscoderSpec) -> Iterator[tuple[str, str]]:
    """Yield (field, sentence) for everything in a spec that cannot be trained; the field is empty
    where it lies in the pair of sites."""
    if spec.selection not in get_args(Selection):
        yield (
            "selection",
            f"selection must be one of {_listed(Selection)}, found {spec.selection!r}",
        )
    if not spec.group_sizes or any(n < 1 for n in spec.group_sizes):
        yield "group_sizes", f"group_sizes must be positive sizes, found {list(spec.group_sizes)}"
        return
    if spec.k < 1:
        yield "k", f"k must be at least 1, found {spec.k}"
    elif spec.k > spec.d_sae:
        text = f"k = {spec.k} is larger than d_sae = {spec.d_sae}; lower k or enlarge group_sizes"
        yield "k", text
    if spec.source.tensor == spec.target.tensor:
        text = (
            f"source {spec.source} and target {spec.target} are the same tensor; a transcoder maps "
            "one site to another"
        )
        yield "", text
    if (weights := spec.prefix_weights) is not None:
        m = len(spec.group_sizes)
        if len(weights) != m + 1:
            text = (
                f"prefix_weights needs {m + 1} numbers (bias only, then one a prefix), "
                f"found {len(weights)}"
            )
            yield "prefix_weights", text
        elif min(weights) < 0 or not math.isclose(sum(weights), 1, abs_tol=1e-6):
            text = f"prefix_weights must be at least 0 and sum to 1, found {list(weights)}"
            yield "prefix_weights", text
        elif weights[-1] == 0:
            text = "the last of prefix_weights is 0: nothing would train the last group"
            yield "prefix_weights", text
    if spec.lr is not None and not (spec.lr > 0 and math.isfinite(spec.lr)):
        yield "lr", f"lr must be a positive number, found {spec.lr}"
    if not (spec.aux_weight >= 0 and math.isfinite(spec.aux_weight)):
        yield "aux_weight", f"aux_weight must be at least 0, found {spec.aux_weight}"
    if spec.k_aux is not None and spec.k_aux < 1:
        yield "k_aux", f"k_aux must be at least 1, found {spec.k_aux}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a suite is trained; shared by its transcoders. Everything here is identity.

    tokens counts trained rows; a row is one token position.
    """

    tokens: int
    batch_tokens: int = 8192
    block_batches: int = 4
    extreme: Extreme = "mask"
    dtype: ComputeDtype = "float32"
    warmup_steps: int | None = None  # None: min(1000, 5 % of the steps)
    decay_fraction: float = 0.2
    adam_betas: tuple[float, float] = (0.9, 0.999)
    dead_after_tokens: int | None = None  # None: min(10M, tokens / 8)
    log_every_steps: int = 10
    lr_by_steps: bool = True  # False: `auto` learning rates as they were before they went by steps
    kernels: Kernels | None = None  # None: mtc_core.kernels.choose; last bits depend on it

    def __post_init__(self) -> None:
        problems = list(train_problems(self))
        if problems:
            raise ConfigError.of(problems)

    @property
    def steps(self) -> int:
        return self.tokens // self.batch_tokens

    @property
    def warmup(self) -> int:
        return self.warmup_steps if self.warmup_steps is not None else min(1000, self.steps // 20)

    @property
    def dead_after(self) -> int:
        """Rows without firing after which a latent counts as dead."""
        if self.dead_after_tokens is not None:
            return self.dead_after_tokens
        return min(DEAD_AFTER_TOKENS_MAX, self.tokens // 8)

    @property
    def block_rows(self) -> int:
        return self.batch_tokens * self.block_batches

    @property
    def lr_steps(self) -> int:
        """What an `auto` learning rate goes by."""
        return self.steps if self.lr_by_steps else AUTO_LR_STEPS

    def lr_factor(self, step: int) -> float:
        """Multiplier of the learning rate at a step: linear warmup, flat, linear decay to 0."""
        decay_steps = max(1, round(self.steps * self.decay_fraction))
        rise = (step + 1) / self.warmup if self.warmup else 1.0
        fall = (self.steps - step) / decay_steps
        return max(0.0, min(1.0, rise, fall))


def train_problems(train: TrainConfig) -> Iterator[tuple[str, str]]:
    """Yield (field, sentence) for every training setting that means nothing."""
    for name in ("tokens", "batch_tokens", "block_batches", "log_every_steps"):
        if getattr(train, name) < 1:
            yield name, f"{name} must be at least 1, found {getattr(train, name)}"
    for name in ("warmup_steps", "dead_after_tokens"):
        if (value := getattr(train, name)) is not None and value < 0:
            yield name, f"{name} must be at least 0, found {value}"
    for name, kind in (("extreme", Extreme), ("dtype", ComputeDtype)):
        if getattr(train, name) not in get_args(kind):
            yield name, f"{name} must be one of {_listed(kind)}, found {getattr(train, name)!r}"
    if train.kernels not in (None, *get_args(Kernels)):
        yield "kernels", f"kernels must be one of {_listed(Kernels)}, found {train.kernels!r}"
    if not 0 <= train.decay_fraction <= 1:
        text = f"decay_fraction must be between 0 and 1, found {train.decay_fraction}"
        yield "decay_fraction", text


def _listed(kind: Any) -> str:
    return ", ".join(get_args(kind))
