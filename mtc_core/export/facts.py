"""What a format needs to know of a suite beside its weights, and what all of them refuse alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtc_core.config import Selection
from mtc_core.model.model_shape import LAYER_NORM_FAMILIES
from mtc_core.model.model_source import known_as
from mtc_core.sites import Site
from mtc_core.transcoder import MatryoshkaTranscoder

Suite = Mapping[str, MatryoshkaTranscoder]
TRAINED = "trained"  # in the provenance of one whose selection is another for a format


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteFacts:
    """model: as others load it, a Hub id where it has one. family: `model_type` of its config.
    data: the text trained on."""

    model: str
    commit: str
    family: str
    n_layers: int
    context_tokens: int
    data: str
    prepend_bos: bool


@dataclass(frozen=True, slots=True)
class Format:
    """A tool's format. selection: the one that it can hold. problems: reasons why it cannot express
    a suite. write: into an empty folder, with a label for what is lossy. how_to_load: Python in
    Markdown, of a {place}, an {id} and a {model}."""

    selection: Selection
    problems: Callable[[Suite, SuiteFacts], Iterator[str]]
    write: Callable[[Suite, SuiteFacts, Path, Mapping[str, str | None]], None]
    how_to_load: str


def provenance(id: str, tc: MatryoshkaTranscoder, lossy: str | None) -> dict[str, Any]:
    """What the tools' own keys have no place for: JSON-able."""
    spec = tc.spec
    return {
        "exported_by": "mtc-orchestrator",
        "id": id,
        "group_sizes": list(spec.group_sizes),
        "matryoshka_widths": list(spec.widths),
        **tc.provenance.get(TRAINED, {"k": spec.k, "trained_with": spec.selection}),
        "lossy": lossy,
        "model": public_model(tc.provenance.get("model")),
        **{key: tc.provenance.get(key) for key in ("l0_test", "fvu_test")},
    }


def public_model(model: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A model as provenance has it, without the folder in which it lies on this machine."""
    if not model:
        return None
    commit = str(model.get("commit", ""))
    named = {key: known_as(str(model[key]), commit) for key in ("name", "description")
             if model.get(key)}  # fmt: skip
    return {**model, **named}


def same_width(suite: Suite, tool: str) -> Iterator[str]:
    """Refusals of tools whose source and target are equally wide."""
    for id, tc in suite.items():
        if tc.d_in != tc.d_out:
            yield f"{id} maps {tc.d_in} to {tc.d_out} dimensions; {tool} needs as many in as out"


def without_skip(suite: Suite, tool: str) -> Iterator[str]:
    for id, tc in suite.items():
        if tc.spec.skip:
            yield f"{id} has a skip connection, which {tool} cannot hold"


def same_hooks(suite: Suite, facts: SuiteFacts, tool: str) -> Iterator[str]:
    """Refusals of tools that find tensors by the names of TransformerLens 2 and 3."""
    for tc in suite.values():
        for site in (tc.spec.source, tc.spec.target):
            if site.kind == "ln2_normalized" and facts.family in LAYER_NORM_FAMILIES:
                yield (
                    f"{site} comes before weight and bias; {tool} would read {site.hook}, which in "
                    f"models with LayerNorm ({facts.family}) comes after them in TransformerLens "
                    "before 4: train on mlp_in, which is that tensor"
                )


def hook_in_block(site: Site) -> str | None:
    """`hook_resid_mid` of `blocks.3.hook_resid_mid`; None outside the blocks."""
    return site.hook.split(".", 2)[2] if site.layer is not None else None


def threshold(tc: MatryoshkaTranscoder) -> torch.Tensor:
    """θ [F] of a JumpReLU that keeps x where x > θ: never below 0, since not every tool takes the
    relu first."""
    return tc.threshold.clamp(min=0).contiguous()
