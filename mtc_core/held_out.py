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
from mtc_core.folding import fold
from mtc_core.quality import Quality
from mtc_core.reference import Reference
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
        self.quality: Quality | None = None
        self._calibration = ThresholdCalibration(spec.k, calibration_rows, device)
        self._ridges = _candidates(trainer)
        self._ridge_sse = [0.0] * len(self._ridges)

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
        reference = Reference.of(self.statistics, self._ridges[best])
        # Through what is saved: whoever measures it again finds the same figures.
        self.transcoder.reference = Reference.from_tensors(reference.tensors())
        self.quality = Quality(self.transcoder, self.chunk_rows)

    def test(self, x_BI: Tensor, y_BO: Tensor) -> None:
        """Take raw rows of the test half: every reported figure comes from these."""
        assert self.quality is not None, "settle() comes first"
        self.quality.add(x_BI, y_BO)

    def summary(self) -> dict[str, Any]:
        """All figures of the test half, JSON-able.

        Raises TrainingStopped where they mean nothing: no ordinary row, a constant target, or
        activations that are not finite."""
        assert self.quality is not None, "settle() comes first"
        return {
            **self.quality.summary(),
            "dead_share": self.dead_share,
            "dead_after_tokens": self.dead_after,
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
