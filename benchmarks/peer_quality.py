"""How well trained coders reconstruct the same held-out rows: ours, and sparsify's by a few lines.

All are given the float32 activations of our test half, and counted alike: FVU over all rows, and
over ordinary ones, which are those that mtc_core.statistics does not call extreme by block 0.

R rows · D width of a site · F latents · K kept latents
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.peer_workload import BLOCK_STEPS, Workload
from mtc_core import load_suite
from mtc_core.capture import make_capture
from mtc_core.metrics import TargetTotals
from mtc_core.model.model_source import load_model
from mtc_core.producer import ActivationProducer
from mtc_core.sites import Site
from mtc_core.statistics import measure_pair, row_distance
from mtc_core.tokens.schedule import Schedule

Coder = Callable[[Tensor], tuple[Tensor, Tensor]]  # x_RD -> y_RD, active latents of each row [R]


def topk_coder(weights: Mapping[str, Tensor], k: int) -> Coder:
    """sparsify's transcoder: the k largest of relu(x W + b), decoded."""

    def reconstruct(x_RD: Tensor) -> tuple[Tensor, Tensor]:
        pre_RF = torch.addmm(weights["encoder.bias"], x_RD, weights["encoder.weight"].T)
        acts_RK, latents_RK = pre_RF.relu().topk(k, dim=1)
        y_RD = torch.nn.functional.embedding_bag(
            latents_RK, weights["W_dec"], per_sample_weights=acts_RK, mode="sum"
        )
        return y_RD + weights["b_dec"], (acts_RK > 0).sum(1)

    return reconstruct


def sparsify_coders(folder: Path, n_layers: int, k: int) -> list[Coder]:
    """Of its checkpoint, by layer."""
    files = [
        folder / "sparsify" / f"layers.{layer}.mlp" / "sae.safetensors" for layer in range(n_layers)
    ]
    return [topk_coder(load_file(file), k) for file in files]


def our_coders(run: Path) -> list[Coder]:
    """Of a run folder, by layer; as at inference, by threshold."""

    def coder(tc: Any) -> Coder:
        def reconstruct(x_RD: Tensor) -> tuple[Tensor, Tensor]:
            acts_RF = tc.encode(x_RD)
            return tc.decode(acts_RF, x=x_RD), (acts_RF > 0).sum(1)

        return reconstruct

    suite = sorted(load_suite(run).values(), key=lambda tc: tc.spec.source.layer or 0)
    return [coder(tc) for tc in suite]


class Score:
    """Totals of one coder over one set of rows."""

    def __init__(self, d: int) -> None:
        self.target, self.sse, self.active = TargetTotals(d, torch.device("cpu")), 0.0, 0

    def add(self, y_RD: Tensor, reconstructed_RD: Tensor, active_R: Tensor) -> None:
        self.target.add(y_RD)
        self.sse += float((y_RD.double() - reconstructed_RD.double()).square().sum())
        self.active += int(active_R.sum())

    def to_dict(self) -> dict[str, float]:
        rows = max(1, self.target.rows)
        return {
            "fvu": self.sse / self.target.variance,
            "l0": self.active / rows,
            "rows": self.target.rows,
        }


@torch.no_grad()
def held_out_quality(
    workload: Workload, candidates: Mapping[str, list[Coder]]
) -> dict[str, list[dict[str, dict[str, float]]]]:
    """Of each candidate, by layer: {"all": …, "ordinary": …}."""
    loaded = load_model(str(workload.model))
    pairs = [(Site.at(n, "mlp_in"), Site.at(n, "mlp_out")) for n in range(workload.n_layers)]
    capture = make_capture(loaded, [site for pair in pairs for site in pair])
    store = workload.store()
    schedule = Schedule(store, 0, BLOCK_STEPS * workload.batch_tokens)
    producer = ActivationProducer(capture, schedule, forward_contexts=16)
    first = producer.block(0)
    known = [measure_pair(first[source.tensor], first[target.tensor]) for source, target in pairs]
    scores = {
        name: [{"all": Score(workload.d_model), "ordinary": Score(workload.d_model)} for _ in pairs]
        for name in candidates
    }
    held = store.holdout("test")
    ids_CT = torch.from_numpy(held.ids_CT.astype("int64"))
    for rows in producer.rows(ids_CT, torch.from_numpy(held.rows_CT.copy())):
        for layer, (source, target) in enumerate(pairs):
            x_RD, y_RD, s = rows[source.tensor], rows[target.tensor], known[layer]
            far_R = s.is_extreme(row_distance(x_RD, s.mu_I), row_distance(y_RD, s.nu_O))
            for name, coders in candidates.items():
                got_RD, active_R = coders[layer](x_RD)
                score = scores[name][layer]
                score["all"].add(y_RD, got_RD, active_R)
                score["ordinary"].add(y_RD[~far_R], got_RD[~far_R], active_R[~far_R])
    capture.close()
    return {
        name: [{kind: score.to_dict() for kind, score in layer.items()} for layer in layers]
        for name, layers in scores.items()
    }
