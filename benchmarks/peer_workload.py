"""What ours and the other tools are all given: a model cut to a few layers, contexts, and held-out
rows, in one folder.

    FOLDER/model             config, float32 weights, tokenizer; transformers 4.57 reads them, too
    FOLDER/contexts.npy      training contexts for the others, shuffled, int64 [C, T]
    FOLDER/tokens            the same text as our run packs it, with its holdout
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers_environment import make_readable
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.schedule import permutation
from mtc_core.tokens.token_store import TokenStore
from mtc_core.tokens.token_writer import TokenWriter
from mtc_core.tokens.tokenizer import TokenizerFacts

UNITS, BLOCK_STEPS = (1, 1, 2, 4), 4


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one tool is asked for. warmup: steps that are not timed. dtype: float32 or bfloat16. lr,
    kernels (of ours alone): None for defaults."""

    tool: str
    steps: int
    warmup: int
    threads: int
    device: str = "cpu"
    dtype: str = "float32"
    kernels: str | None = None
    lr: float | None = None


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One suite: an MLP transcoder for each of the first layers."""

    folder: Path
    text: str
    d_model: int
    special_ids: list[int]
    n_layers: int = 6
    expansion: int = 8
    k: int = 32
    batch_tokens: int = 2048
    context_tokens: int = 128
    holdout_tokens: int = 16_384

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def group_sizes(self) -> list[int]:
        unit = self.d_model * self.expansion // sum(UNITS)
        return [unit * units for units in UNITS]

    @property
    def data(self) -> DataConfig:
        return DataConfig(
            path=self.text,
            context_tokens=self.context_tokens,
            holdout_tokens=self.holdout_tokens,
        )

    def store(self) -> TokenStore:
        return TokenStore(self.folder / "tokens")

    def manifest(self, name: str, run: Run) -> dict[str, Any]:
        """For our run: all that is not given is the product's default."""
        return {
            "name": name,
            "model": {"name": str(self.model), "dtype": run.dtype},
            "data": {
                "path": self.text,
                "context_tokens": self.context_tokens,
                "holdout_tokens": self.holdout_tokens,
            },
            "train": {
                "tokens": run.steps * self.batch_tokens,
                "batch_tokens": self.batch_tokens,
                "block_batches": BLOCK_STEPS,
                "lr": run.lr or "auto",
                "dtype": run.dtype,
                "kernels": run.kernels or "auto",
            },
            "defaults": {"group_sizes": self.group_sizes, "k": self.k},
            "transcoders": [
                {"layers": f"0-{self.n_layers - 1}", "source": "mlp_in", "target": "mlp_out"}
            ],
            "resources": {
                "threads": run.threads,
                "device": "cpu" if run.device == "cpu" else "cuda:0",  # one, as the others take
            },
        }

    def given(self, run: Run, out: Path) -> dict[str, Any]:
        """For the other tools' programs, JSON-able."""
        return {
            **{key: value for key, value in asdict(self).items() if key not in ("folder", "text")},
            "model": str(self.model),
            "contexts": str(self.folder / "contexts.npy"),
            "layers": list(range(self.n_layers)),
            "group_sizes": self.group_sizes,
            "d_sae": sum(self.group_sizes),
            "steps": run.steps,
            "warmup": run.warmup,
            "device": run.device,
            "dtype": run.dtype,
            "lr": run.lr,
            "threads": run.threads,
            "out": str(out),
        }


def prepare(folder: Path, name: str, text: str, steps: int, **sizes: int) -> Workload:
    """Cut the model, tokenize, and write contexts for as many steps. sizes: fields of Workload.
    Raises MtcError."""
    loaded = load_model(name)
    facts = TokenizerFacts.from_hf(loaded.tokenizer)
    workload = Workload(
        folder=folder,
        text=text,
        d_model=loaded.shape.d_model,
        special_ids=sorted(facts.special_ids),
        **sizes,
    )
    cut(loaded, workload.n_layers, workload.model)
    TokenWriter(folder / "tokens", workload.data, facts).ensure(steps * workload.batch_tokens)
    np.save(folder / "contexts.npy", training_contexts(workload, steps))
    return workload


def cut(loaded: LoadedModel, n_layers: int, folder: Path) -> None:
    """Save the model with its first blocks alone."""
    model = loaded.model
    model.model.layers = model.model.layers[:n_layers]
    model.config.num_hidden_layers = n_layers
    if hasattr(model.config, "layer_types"):
        model.config.layer_types = model.config.layer_types[:n_layers]
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    make_readable(folder)


def training_contexts(workload: Workload, steps: int) -> np.ndarray:
    """Whole batches of contexts, with at least as many rows as our run trains: int64 [C, T]. Passes
    over the text follow each other, each shuffled, as in our runs."""
    windows = [window.contexts() for window in workload.store().windows]
    ids_CT = np.concatenate([contexts.ids_CT for contexts in windows]).astype(np.int64)
    rows_C = np.concatenate([contexts.rows_CT for contexts in windows]).sum(axis=1)
    per_step = workload.batch_tokens // workload.context_tokens
    wanted = steps * workload.batch_tokens
    order: list[int] = []
    rows = passes = 0
    while rows < wanted or len(order) % per_step:
        for c in permutation(len(ids_CT), 0, "peers", passes):
            order.append(int(c))
            rows += int(rows_C[c])
            if rows >= wanted and len(order) % per_step == 0:
                break
        passes += 1
    return ids_CT[order]
