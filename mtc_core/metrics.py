"""Totals that merge, and the ratios derived from them at the end.

    FVU = Σ‖y − ŷ‖² / Σ‖y − ȳ‖²,   ȳ per dimension over the same rows

so a mean predictor scores 1 and a perfect one 0, however the rows were split into batches. Never
the variance about one scalar mean, never an average of per-batch ratios. All totals are float64.

B rows · M groups · P = M + 1 prefixes, the bias alone first · F latents · O target width
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from mtc_core.objective import prefix_errors
from mtc_core.selection import Kept
from mtc_core.sparse import Bags

DENSITY_EDGES = tuple(10.0**e for e in range(-6, 1))  # histogram of firing shares, by decade


class TargetTotals:
    """How much there is to explain: rows, Σy and Σ‖y‖² of a target."""

    def __init__(self, d_out: int, device: torch.device) -> None:
        self.rows = 0
        self.sum_O = torch.zeros(d_out, dtype=torch.float64, device=device)
        self.squares = 0.0

    def add(self, y_BO: Tensor) -> None:
        y_BO = y_BO.double()
        self.rows += y_BO.shape[0]
        self.sum_O += y_BO.sum(0)
        self.squares += float(y_BO.square().sum())

    def state(self) -> dict[str, Tensor]:
        return {
            "rows": torch.tensor(self.rows),
            "sum": self.sum_O,
            "squares": torch.tensor(self.squares, dtype=torch.float64),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.rows, self.squares = int(state["rows"]), float(state["squares"])
        self.sum_O.copy_(state["sum"])

    def merge(self, other: TargetTotals) -> None:
        self.rows += other.rows
        self.sum_O += other.sum_O
        self.squares += other.squares

    @property
    def variance(self) -> float:
        """Σ‖y − ȳ‖²."""
        return self.squares - float(self.sum_O.square().sum()) / max(1, self.rows)


class Population:
    """Everything measured of one transcoder over one set of rows (ordinary, or all)."""

    def __init__(
        self, d_sae: int, group_sizes: tuple[int, ...], d_out: int, device: torch.device
    ) -> None:
        m = len(group_sizes)
        self.target = TargetTotals(d_out, device)
        self.sse_P = torch.zeros(m + 1, dtype=torch.float64, device=device)
        self.cosine_P = torch.zeros(m + 1, dtype=torch.float64, device=device)
        self.fired_F = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.baseline_sse = 0.0
        self.ends = list(accumulate(group_sizes))
        sizes = torch.tensor(group_sizes)
        self._group_F = torch.repeat_interleave(torch.arange(m), sizes).to(device)

    def add(
        self,
        y_BO: Tensor,
        base_O: Tensor,
        W_dec_FO: Tensor,
        acts_BF: Tensor,
        baseline_BO: Tensor | None = None,
    ) -> None:
        """Count rows of the target, raw units, with their activations. base_O: the reconstruction
        without latents, one for all rows [O] or each its own [B, O]. Of activations that are NaN
        no ratio can be formed: `problem`."""
        if not y_BO.shape[0]:
            return
        y_BO = y_BO.to(W_dec_FO.dtype)
        kept = Kept.from_dense(acts_BF)
        groups_BMO = Bags(kept, self._group_F, y_BO.shape[0], len(self.ends)).decode(W_dec_FO)
        bias_BO = (base_O - y_BO).unsqueeze(1)
        errors_BPO = torch.cat([bias_BO, prefix_errors(groups_BMO, bias_BO[:, 0])], 1).double()
        # Nothing is kept of NaN activations, so that b_dec alone would pass for their prediction.
        errors_BPO[acts_BF.sum(1).isnan()] = math.nan
        y_BO = y_BO.double()
        self.target.add(y_BO)
        self.sse_P += errors_BPO.square().sum((0, 2))
        outputs_BPO = errors_BPO + y_BO.unsqueeze(1)
        cosine = torch.nn.functional.cosine_similarity(outputs_BPO, y_BO.unsqueeze(1), dim=2)
        self.cosine_P += cosine.sum(0)
        self.fired_F += torch.bincount(kept.latents_n, minlength=len(self.fired_F))
        if baseline_BO is not None:
            self.baseline_sse += float((y_BO - baseline_BO).square().sum())

    def state(self) -> dict[str, Tensor]:
        """All totals, for one who counts on later."""
        return {
            **{f"target.{key}": value for key, value in self.target.state().items()},
            "sse": self.sse_P,
            "cosine": self.cosine_P,
            "fired": self.fired_F,
            "baseline_sse": torch.tensor(self.baseline_sse, dtype=torch.float64),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the totals of another of the same sizes."""
        self.target.load({key: state[f"target.{key}"] for key in self.target.state()})
        self.sse_P.copy_(state["sse"])
        self.cosine_P.copy_(state["cosine"])
        self.fired_F.copy_(state["fired"])
        self.baseline_sse = float(state["baseline_sse"])

    def merge(self, other: Population) -> None:
        """Add another part of the same rows; the order does not matter."""
        self.target.merge(other.target)
        self.sse_P += other.sse_P
        self.cosine_P += other.cosine_P
        self.fired_F += other.fired_F
        self.baseline_sse += other.baseline_sse

    @property
    def rows(self) -> int:
        return self.target.rows

    @property
    def fvu_by_prefix(self) -> list[float]:
        return (self.sse_P[1:] / self.target.variance).tolist()

    @property
    def problem(self) -> str | None:
        """Why no ratio can be formed, if none can."""
        if not self.rows:
            return "there is none; raise data.holdout_tokens"
        if not all(map(math.isfinite, (self.target.variance, *self.sse_P.tolist()))):
            return "activations are not finite; set model.dtype: float32"
        if self.target.variance <= 0:
            return f"the target is constant over {self.rows}; raise data.holdout_tokens"
        return None

    @property
    def l0(self) -> float:
        return int(self.fired_F.sum()) / max(1, self.rows)

    def summary(self) -> dict[str, Any]:
        """The ratios, JSON-able, unless there is a `problem`."""
        fvu = self.fvu_by_prefix
        density_F = self.fired_F.double() / self.rows
        shares = torch.zeros(len(self.ends), dtype=torch.float64, device=density_F.device)
        shares.index_add_(0, self._group_F, self.fired_F.double())
        return {
            "rows": self.rows,
            "fvu": fvu[-1],
            "fvu_by_prefix": fvu,
            "fvu_bias_only": float(self.sse_P[0] / self.target.variance),
            "fvu_ridge": self.baseline_sse / self.target.variance,
            "relative_l2": float(self.sse_P[-1]) / self.target.squares,
            "cosine_by_prefix": (self.cosine_P[1:] / self.rows).tolist(),
            "l0": self.l0,
            "never_fired_share": float((self.fired_F == 0).double().mean()),
            "nonzeros_by_group": (shares / shares.sum().clamp(min=1)).tolist(),
            "min_prefix_loss": min(fvu),
            "max_prefix_loss": max(fvu),
            "density_histogram": _decades(density_F),
        }


def _decades(density_F: Tensor) -> dict[str, int]:
    """Latents by the decade of the share of rows on which they fire."""
    edges = density_F.new_tensor(DENSITY_EDGES)
    counts = torch.bincount(torch.bucketize(density_F, edges), minlength=len(edges) + 1).tolist()
    labels = [f"<={edge:g}" for edge in DENSITY_EDGES]
    never = int((density_F == 0).sum())
    counts[0] -= never
    return {"never": never, **dict(zip(labels, counts, strict=False))}
