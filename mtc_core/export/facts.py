"""What a format needs to know of a suite beside its weights, and what all of them refuse alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtc_core.config import Selection
from mtc_core.sites import Site
from mtc_core.transcoder import MatryoshkaTranscoder

Suite = Mapping[str, MatryoshkaTranscoder]


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
        "k": spec.k,
        "trained_with": spec.selection,
        "lossy": lossy,
        **{key: tc.provenance.get(key) for key in ("model", "l0_test", "fvu_test")},
    }


def same_width(suite: Suite, tool: str) -> Iterator[str]:
    """Refusals of tools whose source and target are equally wide."""
    for id, tc in suite.items():
        if tc.d_in != tc.d_out:
            yield f"{id} maps {tc.d_in} to {tc.d_out} dimensions; {tool} needs as many in as out"


def without_skip(suite: Suite, tool: str) -> Iterator[str]:
    for id, tc in suite.items():
        if tc.spec.skip:
            yield f"{id} has a skip connection, which {tool} cannot hold"


def hook_in_block(site: Site) -> str | None:
    """`hook_resid_mid` of `blocks.3.hook_resid_mid`; None outside the blocks."""
    return site.hook.split(".", 2)[2] if site.layer is not None else None


def threshold(tc: MatryoshkaTranscoder) -> torch.Tensor:
    """θ [F] of a JumpReLU that keeps x where x > θ: never below 0, since not every tool takes the
    relu first."""
    return tc.threshold.clamp(min=0).contiguous()
