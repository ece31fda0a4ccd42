"""From a trained state to a saved transcoder, measured on text it never saw.

    fold -> calibrate (one half of the holdout) -> settle -> test (the other half) -> summary

Works on copies: the training state is not touched.

B rows · I, O source and target widths
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtc_core.calibration import ThresholdCalibration
from mtc_core.errors import TrainingStopped
from mtc_core.folding import fold
from mtc_core.metrics import Population
from mtc_core.ridge import PENALTIES, Ridge
from mtc_core.statistics import PairStatistics, row_distance
from mtc_core.trainer import TranscoderTrainer
from mtc_core.transcoder import MatryoshkaTranscoder


class HeldOut:
    """Calibrates and measures one transcoder; feed `calibrate`, then `settle`, then `test`."""

    def __init__(self, trainer: TranscoderTrainer, calibration_rows: int) -> None:
        spec, device = trainer.spec, trainer.device
        self.statistics = trainer.statistics
        self.dead_share = trainer.dead_share
        self.dead_after = trainer.train.dead_after
        # Dense activations and float64 errors take about four times the memory of a step's row.
        self.chunk_rows = max(1, trainer.train.batch_tokens // 4)
        seen = float(trainer.threshold) >= 0
        self.ema_threshold = float(trainer.threshold) / self.statistics.c if seen else None
        tensors = fold(trainer.weights, self.statistics)
        tensors["threshold"] = torch.full((spec.d_sae,), self.ema_threshold or 0.0, device=device)
        self.transcoder = MatryoshkaTranscoder(spec, tensors)
        self._calibration = ThresholdCalibration(spec.k, calibration_rows, device)
        self._ridges = _candidates(trainer)
        self._ridge_sse = [0.0] * len(self._ridges)
        sizes = (spec.d_sae, spec.group_sizes, self.transcoder.d_out, device)
        self.ordinary, self.all_rows = Population(*sizes), Population(*sizes)

    @torch.no_grad()
    def calibrate(self, x_BI: Tensor, y_BO: Tensor) -> None:
        """Take raw rows of the calibration half."""
        for x_part, y_part in zip(
            x_BI.split(self.chunk_rows), y_BO.split(self.chunk_rows), strict=True
        ):
            self._calibrate(x_part, y_part)

    def _calibrate(self, x_BI: Tensor, y_BO: Tensor) -> None:
        ordinary_B = ~self._extreme(x_BI, y_BO)
        x_BI, y_BO = x_BI[ordinary_B], y_BO[ordinary_B]
        self._calibration.add(self.transcoder.pre_activations(x_BI))
        for i, ridge in enumerate(self._ridges):
            self._ridge_sse[i] += float((y_BO.double() - ridge(x_BI)).square().sum())

    def settle(self) -> None:
        """Fix the threshold and the ridge penalty; before `test`."""
        if self._calibration.rows:
            self.transcoder.threshold.fill_(self._calibration.threshold())
        best = min(range(len(self._ridges)), key=self._ridge_sse.__getitem__)
        self._ridges = [self._ridges[best]]

    @torch.no_grad()
    def test(self, x_BI: Tensor, y_BO: Tensor) -> None:
        """Take raw rows of the test half: every reported figure comes from these."""
        for x_part, y_part in zip(
            x_BI.split(self.chunk_rows), y_BO.split(self.chunk_rows), strict=True
        ):
            self._test(x_part, y_part)

    def _test(self, x_BI: Tensor, y_BO: Tensor) -> None:
        ordinary_B = ~self._extreme(x_BI, y_BO)
        tc, ridge = self.transcoder, self._ridges[0]
        acts_BF, line_BO = tc.encode(x_BI), ridge(x_BI)
        self.all_rows.add(y_BO, tc.b_dec, tc.W_dec, acts_BF, line_BO)
        self.ordinary.add(
            y_BO[ordinary_B], tc.b_dec, tc.W_dec, acts_BF[ordinary_B], line_BO[ordinary_B]
        )

    def summary(self) -> dict[str, Any]:
        """All figures of the test half, JSON-able.

        Raises TrainingStopped where they mean nothing: no ordinary row, a constant target, or
        activations that are not finite."""
        for name, population in (("ordinary rows", self.ordinary), ("rows", self.all_rows)):
            if problem := population.problem:
                raise TrainingStopped(f"held-out test text, {name}: {problem}")
        extreme_rows = self.all_rows.rows - self.ordinary.rows
        of_variance = 1 - self.ordinary.target.variance / max(self.all_rows.target.variance, 1e-300)
        return {
            "ordinary": self.ordinary.summary(),
            "all": self.all_rows.summary(),
            "extreme_row_share": extreme_rows / max(1, self.all_rows.rows),
            "extreme_variance_share": of_variance if extreme_rows else 0.0,
            "dead_share": self.dead_share,
            "dead_after_tokens": self.dead_after,
            "k": self.transcoder.spec.k,
            "threshold": float(self.transcoder.threshold[0]),
            "threshold_ema": self.ema_threshold,
            "calibration_rows": self._calibration.rows,
        }

    def _extreme(self, x_BI: Tensor, y_BO: Tensor) -> Tensor:
        s = self.statistics
        return s.is_extreme(row_distance(x_BI, s.mu_I), row_distance(y_BO, s.nu_O))


def _candidates(trainer: TranscoderTrainer) -> list[Ridge]:
    """One fitted line per penalty, unscaled: y = ν + (a(x − μ) M + m_0) / c."""
    s: PairStatistics = trainer.statistics
    ridges = []
    for penalty in PENALTIES:
        M = trainer.ridge.solve(penalty)
        W_IO = M[:-1] * (s.a / s.c)
        ridges.append(Ridge(W_IO, s.nu_O + M[-1] / s.c - s.mu_I @ W_IO))
    return ridges
