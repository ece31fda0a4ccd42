"""Suites that were really trained, and what they give on real activations of their models.

C contexts · T positions of a context · R rows · D source width · F latents
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mtc_core import MatryoshkaTranscoder, load_suite
from mtc_core.capture import make_capture
from mtc_core.model.model_source import load_model
from tests.core.tiny_models import BOS_ID, save_tiny_model
from tests.e2e.runs import run_here, write_manifest

N_LAYERS, CONTEXTS, CONTEXT_TOKENS, PROMPT_TOKENS = 3, 8, 32, 12
# Of every kind of transcoder a suite: the model's family, and what a manifest says.
KINDS = {
    "batchtopk": ("llama", "source: resid_mid, target: mlp_out"),
    "skip": ("llama", "source: resid_mid, target: mlp_out, skip: true"),
    "topk": ("gpt2", "source: mlp_in, target: mlp_out, selection: topk"),
    "topk-skip": ("llama", "source: mlp_in, target: mlp_out, selection: topk, skip: true"),
    "mlp": ("mistral", "source: mlp_in, target: mlp_out"),
    "normalized": ("qwen3", "source: ln2_normalized, target: mlp_out"),
    "early": ("qwen2", "source: resid_pre, target: mlp_out"),
    "block": ("gemma2", "source: resid_pre, target: resid_post"),
}


@dataclass(frozen=True)
class Suite:
    """A trained suite, one transcoder a layer; x_RD of each source, and its model on a prompt."""

    model: Path
    run: Path
    transcoders: dict[str, MatryoshkaTranscoder]
    x_RD: dict[str, Tensor]
    prompt_T: Tensor
    prompt_x_TD: dict[str, Tensor]
    logits_TV: Tensor

    def by_layer(self) -> Iterator[tuple[str, MatryoshkaTranscoder]]:
        yield from sorted(self.transcoders.items(), key=lambda item: item[1].spec.source.layer)


def train(folder: Path, family: str, what: str) -> Suite:
    """Train a suite over all layers for 40 steps and look at its model on other text."""
    model = save_tiny_model(folder / "model", family=family, n_layers=N_LAYERS)
    line = f"  - {{layers: 0-{N_LAYERS - 1}, {what}}}"
    code, printed = run_here(write_manifest(folder, model, transcoders=line), folder)
    assert code == 0, printed
    transcoders = load_suite(folder / "small")
    assert len(transcoders) == N_LAYERS
    loaded = load_model(str(model))
    text = Path(textwrap.__file__).read_bytes()[: CONTEXTS * (CONTEXT_TOKENS - 1)]
    ids_CT = torch.tensor(list(text)).view(CONTEXTS, CONTEXT_TOKENS - 1)
    ids_CT = torch.cat([torch.full((CONTEXTS, 1), BOS_ID), ids_CT], dim=1)
    sources = [tc.spec.source for tc in transcoders.values()]
    rows_CTD = make_capture(loaded, sources)(ids_CT)
    prompt_T = ids_CT[0, :PROMPT_TOKENS]
    return Suite(
        model=model,
        run=folder / "small",
        transcoders=transcoders,
        # Without BOS, whose rows are so long that they could hide a difference in others.
        x_RD={name: rows[:, 1:].flatten(0, 1) for name, rows in rows_CTD.items()},
        prompt_T=prompt_T,
        prompt_x_TD={name: rows[0, :PROMPT_TOKENS] for name, rows in rows_CTD.items()},
        logits_TV=loaded.model(prompt_T[None]).logits[0],
    )


def above_threshold(tc: MatryoshkaTranscoder, x_RD: Tensor) -> Tensor:
    """Activations [R, F] by the formula of JumpReLU, which most tools know alone."""
    pre_RF = x_RD @ tc.W_enc.T + tc.b_enc
    return pre_RF.relu() * (pre_RF > tc.threshold)


def k_largest(tc: MatryoshkaTranscoder, x_RD: Tensor, k: int) -> Tensor:
    """Activations [R, F] by the formula of sparsify."""
    acts_RF = (x_RD @ tc.W_enc.T + tc.b_enc).relu()
    values, latents = acts_RF.topk(k)
    return torch.zeros_like(acts_RF).scatter(1, latents, values)


def expected(name: str, tc: MatryoshkaTranscoder, x_RD: Tensor, k: int | None) -> dict[str, Tensor]:
    """What a tool shall give on rows. k: that of a tool which keeps the k largest.

    Without rows where rounding decides whether a latent is active."""
    pre_RF = x_RD @ tc.W_enc.T + tc.b_enc
    if k is None:
        margin_R = (pre_RF - tc.threshold).abs().amin(dim=1)
    else:
        ordered_RF = pre_RF.relu().sort(dim=1, descending=True).values
        margin_R = ordered_RF[:, k - 1] - ordered_RF[:, k]
        margin_R[ordered_RF[:, k] == 0] = torch.inf  # fewer than k + 1 are positive
    x_RD = x_RD[margin_R > 1e-5 * pre_RF.abs().amax(dim=1)]
    assert len(x_RD) > 0.95 * len(margin_R), "rounding decides more than one row in twenty"
    acts_RF = above_threshold(tc, x_RD) if k is None else k_largest(tc, x_RD, k)
    return {f"{name}.x": x_RD, f"{name}.acts": acts_RF, f"{name}.y": tc.decode(acts_RF, x=x_RD)}
