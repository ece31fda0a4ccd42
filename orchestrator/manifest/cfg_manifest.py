"""Writes the manifest of a translated config: a comment beside each key says where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mtc_core.sites import Site
from orchestrator.manifest.cfg_translation import Translation, translate_cfg
from orchestrator.manifest.load import load_text
from orchestrator.manifest.start import (
    aligned,
    holdout_for,
    quoted,
    short_count,
    starting_name,
)

Line = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FromCfg:
    """A manifest, the name of its run, and why keys of the config are not in it."""

    name: str
    text: str
    notes: dict[str, str]


def manifest_from_cfg(path: Path) -> FromCfg:
    """Raises ManifestError for whatever the config has wrong."""
    cfg = translate_cfg(path)
    name = starting_name(cfg.model, [f"{cfg.ends[0]}:{cfg.ends[1]}"])
    lines = [
        (f"name: {name}", f"the run folder: runs/{name}"),
        *_seed(cfg),
        *_section("model", _model(cfg)),
        *_section("data", _data(cfg)),
        *_section("train", _train(cfg)),
        *_section("defaults", _defaults(cfg)),
        *_section("transcoders", _transcoders(cfg.ends)),
        *_section("resources", _resources(cfg)),
        *_section("tracking", _tracking(cfg)),
    ]
    file = "".join(c if c.isprintable() else "?" for c in Path(cfg.source).name)
    head = f"# Made of {file}. Every key: manifests/README.md"
    text = "\n".join([head, *aligned(lines), *_not_carried(cfg)]) + "\n"
    load_text(text, f"{cfg.source}, as a manifest")
    return FromCfg(name, text, cfg.notes)


def _has(cfg: Translation, key: str) -> bool:
    return key in cfg.given


def _section(name: str, lines: Iterator[Line]) -> list[Line]:
    found = list(lines)
    return [("", ""), (f"{name}:", ""), *found] if found else []


def _from(cfg: Translation, key: str, comment: str = "") -> str:
    """What stands beside a value: the guide's key, and more."""
    own = key if _has(cfg, key) else f"the guide's own {key}"
    return f"{own}; {comment}" if comment else own


def _seed(cfg: Translation) -> Iterator[Line]:
    if _has(cfg, "seed"):
        yield f"seed: {cfg.values['seed']}", "seed; of the order of the text, too"


def _model(cfg: Translation) -> Iterator[Line]:
    called = cfg.values["model_name"]
    renamed = f"{called}, by its name on the Hub" if called != cfg.model else ""
    yield f"  name: {quoted(cfg.model)}", _from(cfg, "model_name", renamed)
    if _has(cfg, "model_dtype"):
        yield f"  dtype: {cfg.values['model_dtype']}", "model_dtype; of the forward pass"
    if _has(cfg, "model_batch_size"):
        contexts = cfg.values["model_batch_size"]
        yield f"  forward_contexts: {contexts}", "model_batch_size; contexts of one forward pass"


def _data(cfg: Translation) -> Iterator[Line]:
    yield f"  path: {quoted(cfg.values['dataset_path'])}", _from(cfg, "dataset_path")
    if _has(cfg, "dataset_split"):
        yield f"  split: {quoted(cfg.values['dataset_split'])}", "dataset_split"
    if cfg.columns:
        yield "  column: text", "the column that holds the text"
    written = cfg.values["seq_len"]
    context = min(written, (cfg.shape and cfg.shape.max_context) or written)
    cut = f"cut from {written} to what the model has" if context < written else ""
    yield f"  context_tokens: {context}", _from(cfg, "seq_len", cut)
    holdout = max(2 * context, holdout_for(cfg.text_bytes, context))
    yield f"  holdout_tokens: {holdout:_}", "kept from training; the guide keeps nothing"


def _train(cfg: Translation) -> Iterator[Line]:
    values = cfg.values
    tokens, batch = values["num_tokens"], values["batch_size"]
    yield f"  tokens: {short_count(tokens)}", f"num_tokens; {tokens // batch:,} steps"
    yield f"  batch_tokens: {batch}", _from(cfg, "batch_size", "rows of one step")
    yield f"  lr: {values['lr']!r}", _from(cfg, "lr")
    yield from _schedule(cfg, tokens // batch)
    if "dtype" in values:
        yield f"  dtype: {values['dtype']}", "dtype; of the matrix products, weights stay float32"
    if "n_batches_to_dead" in values:
        dead = values["n_batches_to_dead"] * batch
        yield f"  dead_after_tokens: {dead}", "n_batches_to_dead x batch_size; auto waits longer"
    yield "  extreme: mask", "attention sinks are left out, unlike in the guide: keep"


def _schedule(cfg: Translation, steps: int) -> Iterator[Line]:
    kind, warmup = cfg.values["scheduler_type"], cfg.values["warmup_steps"]
    rises, falls = "warmup" in kind, "decay" in kind
    if rises:
        yield f"  warmup_steps: {warmup}", _from(cfg, "warmup_steps")
    else:
        yield "  warmup_steps: 0", _from(cfg, "scheduler_type", f"{kind}: no warmup; auto has one")
    if falls:
        share = round(max(0.0, 1 - (warmup if rises else 0) / steps), 4)
        told = _from(cfg, "scheduler_type", f"{kind}: a line to 0, where the guide has a cosine")
        yield f"  decay_fraction: {share:g}", told
    else:
        yield "  decay_fraction: 0", _from(cfg, "scheduler_type", f"{kind}: no decay; 0.2 is ours")


def _defaults(cfg: Translation) -> Iterator[Line]:
    values = cfg.values
    sizes = values["group_sizes"]
    yield f"  group_sizes: {list(sizes)}", f"group_sizes; sizes, not ends: {sum(sizes):,} latents"
    if _has(cfg, "dict_size"):
        yield f"  d_sae: {values['dict_size']}", "dict_size; only a check"
    yield f"  k: {values['top_k']}", "top_k; latents of a row, on average over the batch"
    yield (
        "  selection: batchtopk",
        "largest of the batch, as in the guide; topk: of each row",
    )
    if _has(cfg, "aux_penalty"):
        yield f"  aux_weight: {values['aux_penalty']!r}", "aux_penalty"
    if _has(cfg, "top_k_aux"):
        yield f"  k_aux: {values['top_k_aux']}", "top_k_aux"


def _transcoders(ends: tuple[Site, Site]) -> Iterator[Line]:
    told = "mlp_in: what the MLP reads, after its norm"
    comment = told if any(end.kind == "mlp_in" for end in ends) else ""
    yield f"  - {{source: {ends[0]}, target: {ends[1]}}}", comment


def _resources(cfg: Translation) -> Iterator[Line]:
    if _has(cfg, "device"):
        yield f"  device: {cfg.values['device']}", "device; auto takes the GPUs that there are"


def _tracking(cfg: Translation) -> Iterator[Line]:
    if _has(cfg, "wandb_project"):
        yield "  wandb: online", "as in the guide; or offline, or off"
        yield f"  project: {quoted(cfg.values['wandb_project'])}", "wandb_project"


def _not_carried(cfg: Translation) -> list[str]:
    if not cfg.notes:
        return []
    return ["", "# Not carried over:", *(f"#   {key}: {why}" for key, why in cfg.notes.items())]
