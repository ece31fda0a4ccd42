"""A suite on a GPU with nothing to download: random weights of a known shape, random tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import torch

from benchmarks.suite import mlp_specs, nested, train_on
from mtc_core.capture import make_capture
from mtc_core.config import ComputeDtype, Kernels, TrainConfig, TranscoderSpec
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import LoadedModel
from mtc_core.producer import ActivationProducer, Activations
from mtc_core.statistics import measure_pair
from mtc_core.tokens.schedule import Block
from mtc_core.trainer import TranscoderTrainer
from mtc_core.workspace import Workspace
from orchestrator.manifest.contexts import usual_contexts

CONTEXT = 128
TINY = {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 64,
        "n_positions": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of orchestrator/shapes.json, d_sae as a multiple of d_model, k, and rows a step."""

    model: str
    expansion: int
    k: int
    batch: int


SHAPES = {
    "gpt2": Shape("gpt2", 16, 64, 8192),
    "gemma-2-2b": Shape("google/gemma-2-2b", 16, 64, 8192),
    "tiny": Shape("tiny", 4, 4, 64),  # shows on a CPU that all of this runs
}


@dataclass(frozen=True, slots=True)
class RandomSchedule:
    """Blocks of contexts of random ids; position 0 of each is no row."""

    rows: int
    vocabulary: int

    def block(self, b: int) -> Block:
        draw = np.random.default_rng(b)
        contexts = -(-self.rows // (CONTEXT - 1))
        ids_CT = draw.integers(1, self.vocabulary, (contexts, CONTEXT))
        flat = np.arange(contexts * CONTEXT).reshape(contexts, CONTEXT)[:, 1:].ravel()
        return Block(b, ids_CT, draw.permutation(flat)[: self.rows], 0)


def random_model(name: str, dtype: torch.dtype, device: str) -> LoadedModel:
    """Random weights, in a model of that config."""
    import transformers

    known = json.loads((files("orchestrator") / "shapes.json").read_text("utf-8"))
    config = dict(TINY if name == "tiny" else known[name])
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(config.pop("model_type"), **config), dtype=dtype
    )
    shape = ModelShape.from_config(made.config.to_dict())
    model = made.to(device).eval().requires_grad_(False)
    return LoadedModel(model, None, shape, "random", f"random weights of {name}'s shape")


class RandomSuite:
    """One transcoder for each MLP, resid_mid -> mlp_out; the product's producer and trainers."""

    def __init__(
        self, shape: Shape, loaded: LoadedModel, kernels: Kernels, dtype: ComputeDtype, device: str
    ) -> None:
        sizes = nested(loaded.shape.d_model * shape.expansion, 4)
        self.train = TrainConfig(
            tokens=10**9, batch_tokens=shape.batch, dtype=dtype, kernels=kernels,
            log_every_steps=10**6,
        )  # fmt: skip
        self.specs = mlp_specs(loaded.shape.n_layers, sizes, shape.k)
        sites = [site for spec in self.specs for site in (spec.source, spec.target)]
        schedule = RandomSchedule(self.train.block_rows, loaded.shape.vocab_size)
        capture = make_capture(loaded, sites, "hf")
        contexts = usual_contexts(CONTEXT, gpus=device != "cpu")
        self.producer = ActivationProducer(
            capture, schedule, forward_contexts=contexts, device=device
        )
        block, workspace = self.producer.block(0), Workspace()
        self.trainers = [self._trainer(spec, block, workspace, device) for spec in self.specs]

    def _trainer(
        self, spec: TranscoderSpec, block: Activations, workspace: Workspace, device: str
    ) -> TranscoderTrainer:
        x_NI, y_NO = block[spec.source.tensor].float(), block[spec.target.tensor].float()
        trainer = TranscoderTrainer(
            spec, self.train, measure_pair(x_NI, y_NO), device=device, workspace=workspace
        )
        trainer.ridge.wanted = 0  # the steady state: totals are complete after 128 d_in rows
        return trainer

    def run_block(self, b: int) -> None:
        train_on(self.trainers, self.producer.block(b))

    def weights(self) -> dict[str, torch.Tensor]:
        """Of all transcoders, by id and name."""
        return {
            f"{trainer.spec.id} {name}": tensor
            for trainer in self.trainers
            for name, tensor in trainer.weights.tensors().items()
        }


def machine(device: str) -> dict[str, Any]:
    import platform

    import transformers

    on_gpu = device != "cpu"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or "CPU",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
