"""What a CPU does in a second, of each kind of work that a suite has: the constants by which a plan
predicts tokens/s (orchestrator/planning/rates.py).

    python benchmarks/rates.py --threads 1 [--kernels torch] [--dtype bfloat16]

Times the product's own steps and forward passes on random weights and rows, for shapes that differ
in what they have much of, and fits seconds = sum of work / rate, by least squares relative to what
was measured. Prints the rates, and how far each shape is from what they say. On a quiet machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers

from mtc_core.capture import make_capture
from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.kernels.sieve import multiplies_bfloat16
from mtc_core.model.model_source import load_model
from mtc_core.sites import Site
from mtc_core.statistics import measure_pair
from mtc_core.trainer import TranscoderTrainer
from orchestrator.planning import costs

# d, d_sae, k, groups, batch
STEPS = (
    (64, 512, 8, 1, 1024),
    (64, 4096, 16, 4, 1024),
    (256, 2048, 32, 4, 1024),
    (256, 8192, 16, 1, 2048),
    (256, 8192, 64, 8, 1024),
    (576, 4608, 32, 4, 1024),
    (576, 4608, 32, 4, 2048),
    (576, 9216, 64, 2, 2048),
    (768, 12288, 64, 4, 2048),
    (768, 3072, 128, 4, 4096),
    (576, 2304, 64, 4, 2048),
    (256, 4096, 128, 1, 2048),
)
# d_model, d_mlp, heads, layers
MODELS = ((128, 512, 4, 4), (256, 1024, 4, 4), (576, 1536, 9, 4), (768, 3072, 12, 3))
CONTEXTS, TOKENS, REPEATS = 16, 128, 7


def step_work(
    args: argparse.Namespace, d: int, d_sae: int, k: int, groups: int, batch: int
) -> tuple[list[float], float]:
    """Work of a step by kind, and its seconds."""
    sizes = tuple([d_sae // groups] * (groups - 1) + [d_sae - d_sae // groups * (groups - 1)])
    spec = TranscoderSpec(
        source=Site.at(0, "resid_mid"), target=Site.at(0, "mlp_out"), group_sizes=sizes, k=k
    )
    train = TrainConfig(tokens=10**9, batch_tokens=batch, kernels=args.kernels, dtype=args.dtype)
    x, y = torch.randn(batch, d), torch.randn(batch, d)
    trainer = TranscoderTrainer(spec, train, measure_pair(x, y))
    trainer.ridge.wanted = 0  # the steady state
    work = costs.transcoder_cost(spec, d, d, batch).work
    sieved = args.kernels is None and multiplies_bfloat16() and spec.takes_few(train.extreme)
    products = [batch * work.dense_flops, 0.0]
    rest = [batch * work.sparse_flops, batch * work.bytes, 1.0]
    kinds = [*(products[::-1] if sieved else products), *rest]
    return kinds, median_seconds(lambda: trainer.step(x, y))


def pass_work(
    args: argparse.Namespace, d: int, d_mlp: int, heads: int, layers: int
) -> tuple[list[float], float]:
    """FLOPs of a forward pass, and its seconds."""
    config = transformers.LlamaConfig(
        hidden_size=d, intermediate_size=d_mlp, num_hidden_layers=layers, vocab_size=512,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=TOKENS,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
        _byte_tokenizer(Path(folder))
        plain = args.kernels == "torch"
        loaded = load_model(folder, dtype=args.dtype, faster_products=not plain)
    sites = [Site.at(layer, kind) for layer in range(layers) for kind in ("resid_mid", "mlp_out")]
    capture = make_capture(loaded, sites)
    ids = torch.randint(0, 512, (CONTEXTS, TOKENS))
    flops = costs.forward_flops(loaded.shape, layers, TOKENS) * ids.numel()
    return [flops, 1.0], median_seconds(lambda: capture(ids))


def _byte_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models

    made = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)


def median_seconds(work: Callable[[], object]) -> float:
    for _ in range(3):
        work()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def fitted(work: Sequence[Sequence[float]], seconds: Sequence[float]) -> torch.Tensor:
    """Seconds per unit of each kind, none below 0, of least relative error."""
    A = torch.tensor(work, dtype=torch.float64) / torch.tensor(seconds)[:, None]
    kinds = list(range(A.shape[1]))
    while True:
        found = torch.linalg.lstsq(A[:, kinds], torch.ones(len(A), 1, dtype=torch.float64)).solution
        if (found > 0).all():
            break
        kinds.remove(kinds[int(found.argmin())])
    full = torch.zeros(A.shape[1], dtype=torch.float64)
    full[kinds] = found.squeeze(1)
    return full


def show(what: str, shapes: Sequence[tuple], kinds: Sequence[str], measure: Callable) -> None:
    work, seconds = zip(*(measure(*shape) for shape in shapes), strict=True)
    per_unit = fitted(work, seconds)
    for kind, value in zip(kinds, per_unit.tolist(), strict=True):
        rate = f"{1 / value:.3g} a second" if value and kind != "each" else f"{value:.3g} s"
        print(f"{what:<8} {kind:<14} {rate}")
    for shape, done, took in zip(shapes, work, seconds, strict=True):
        said = float(per_unit @ torch.tensor(done, dtype=torch.float64))
        print(f"  {shape!s:<28} {1000 * took:8.1f} ms, by the rates {said / took:5.2f} of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kernels", choices=("torch",), help="as train.kernels: all by torch")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{platform.processor() or platform.machine()}, {args.threads} threads, torch "
          f"{torch.__version__}, {args.dtype}")  # fmt: skip
    of_steps = ("dense FLOP", "sieved FLOP", "sparse FLOP", "bytes", "each")
    show("step", STEPS, of_steps, partial(step_work, args))
    show("forward", MODELS, ("FLOP", "each"), partial(pass_work, args))


if __name__ == "__main__":
    main()
