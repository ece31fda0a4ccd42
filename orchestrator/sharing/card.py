"""The model card: what a suite is, how good, and how to load it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from mtc_core.model.model_source import is_local
from orchestrator.evaluating.show import spliced_test
from orchestrator.evaluating.subject import Subject
from orchestrator.sharing.known import data_of, is_on_the_hub, model_of
from orchestrator.summary import Ended, read_ended


def card(
    subject: Subject,
    ids: Sequence[str],
    format: str,
    how_to_load: str,
    model_name: str | None,
    record: Mapping[str, Any] | None = None,
) -> str:
    """README.md of a folder that is shared. model_name: what others call the model, if that is
    another name. record: of an export, whose labels are told."""
    manifest, model = subject.manifest, model_name or model_of(subject)
    on_hub = not is_local(model_name) if model_name else is_on_the_hub(subject)
    metadata = {
        "library_name": "mtc-orchestrator",
        "tags": ["transcoder", "matryoshka", "sparse-dictionary", "interpretability", format],
        **({"base_model": model} if on_hub else {}),
    }
    rows = read_ended(subject.run, ids)
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---",
        f"# {manifest.name}: {len(ids)} Matryoshka transcoders of {model}",
        _what(subject, rows, model),
        f"## Load\n\n{how_to_load.strip()}",
        "\n".join(_quality(subject, rows)),
        "\n".join(_labels(record)),
        _training(subject),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(subject: Subject, rows: Sequence[Ended], model: str) -> str:
    pairs = sorted({f"{_kind(row.spec['source'])} → {_kind(row.spec['target'])}" for row in rows})
    return (
        f"Sparse dictionaries from one site of the model to another ({', '.join(pairs)}), whose "
        "nested groups of latents each reconstruct the target. They belong to the weights of "
        f"`{model}` at `{subject.pins['model']}`, raw as the Hub has them "
        "(neither folded nor centred); raw activations go in, raw activations come out. Rows of "
        "special tokens, the first position among them, were neither trained nor measured."
    )


def _kind(hook: str) -> str:
    return hook.split(".", 2)[-1]


def _quality(subject: Subject, rows: Sequence[Ended]) -> Iterator[str]:
    yield "## Quality\n"
    yield (
        "On held-out text. FVU: unexplained variance, 1 for a mean predictor, 0 for a perfect one, "
        "of ordinary rows and of all; ridge: that of a linear map; CE +: what the reconstruction "
        "in place of the target adds to the model's cross-entropy (nats).\n"
    )
    splice = spliced_test(subject.run.path)[0] or {}
    spliced = splice.get("transcoders", {})
    yield "| transcoder | FVU by prefix | all rows | ridge | L0 | dead % | CE + | KL |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        if row.evaluation is None:
            continue
        ordinary = row.evaluation["ordinary"]
        one = spliced.get(row.id)
        tail = f"{one['ce_increase']:.3f} | {one['kl']:.3f}" if one else " | "
        yield (
            f"| {row.id} | {' '.join(f'{fvu:.3f}' for fvu in ordinary['fvu_by_prefix'])} | "
            f"{row.evaluation['all']['fvu']:.3f} | {ordinary['fvu_ridge']:.3f} | "
            f"{ordinary['l0']:.1f} | {100 * row.evaluation['dead_share']:.1f} | {tail} |"
        )
    if joint := splice.get("joint"):
        yield (
            f"\nAll {len(spliced)} transcoders of the run spliced together, each reading what "
            f"those below it have made: CE + {joint['ce_increase']:.3f} on {splice['tokens']:,} "
            f"tokens (the model's own is {splice['ce_clean']:.3f}), KL {joint['kl']:.3f}."
        )


def _labels(record: Mapping[str, Any] | None) -> Iterator[str]:
    lossy = {id: one["lossy"] for id, one in (record or {}).get("transcoders", {}).items()}
    if any(lossy.values()):
        yield "## Lossy\n"
        yield "The format cannot hold these as they were trained. Measured on held-out text:\n"
        yield from (f"- {id}: {label}" for id, label in lossy.items() if label)


def _training(subject: Subject) -> str:
    """The settings, as a manifest has them. Nothing of where they ran or of who tracked them."""
    settings = subject.manifest.model_dump(mode="json", exclude_none=True)
    kept = {key: settings[key] for key in ("model", "data", "train", "defaults", "transcoders")}
    kept["model"] = {**kept["model"], "name": model_of(subject)}
    kept["data"] = {**kept["data"], "path": data_of(subject)}
    text = yaml.safe_dump({"seed": settings["seed"], **kept}, sort_keys=False)
    return f"## Training\n\n```yaml\n{text}```"
