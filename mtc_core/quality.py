"""How well a transcoder reconstructs its target on given rows: over ordinary rows, and over all.

B rows · I, O source and target widths
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtc_core.errors import TrainingStopped
from mtc_core.metrics import Population
from mtc_core.transcoder import MatryoshkaTranscoder


class Quality:
    """Figures of one transcoder that has a reference. Its totals are tensors that can be saved, so
    that counting may go on later."""

    def __init__(self, transcoder: MatryoshkaTranscoder, chunk_rows: int = 2048) -> None:
        """chunk_rows: rows taken at once; dense activations and float64 errors take about four
        times the memory of a training row."""
        assert transcoder.reference is not None
        self.transcoder, self.reference = transcoder, transcoder.reference
        self.chunk_rows = chunk_rows
        sizes = (transcoder.d_sae, transcoder.spec.group_sizes, transcoder.d_out)
        device = transcoder.W_enc.device
        self.ordinary, self.all_rows = Population(*sizes, device), Population(*sizes, device)

    @torch.no_grad()
    def add(self, x_BI: Tensor, y_BO: Tensor) -> None:
        """Count raw rows of both sites."""
        size = self.chunk_rows
        for x_part, y_part in zip(x_BI.split(size), y_BO.split(size), strict=True):
            self._add(x_part, y_part)

    def _add(self, x_BI: Tensor, y_BO: Tensor) -> None:
        ordinary_B = ~self.reference.is_extreme(x_BI, y_BO)
        tc = self.transcoder
        acts_BF, line_BO = tc.encode(x_BI), self.reference.ridge(x_BI)
        self.all_rows.add(y_BO, tc.base(x_BI), tc.W_dec, acts_BF, line_BO)
        x_BI, y_BO, acts_BF, line_BO = (rows[ordinary_B] for rows in (x_BI, y_BO, acts_BF, line_BO))
        self.ordinary.add(y_BO, tc.base(x_BI), tc.W_dec, acts_BF, line_BO)

    def summary(self) -> dict[str, Any]:
        """All figures, JSON-able.

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
            "k": self.transcoder.spec.k,
            "threshold": float(self.transcoder.threshold[0]),
        }

    def state(self) -> dict[str, Tensor]:
        """The totals so far."""
        return {
            f"{name}.{key}": value
            for name, population in self._populations
            for key, value in population.state().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from saved totals."""
        for name, population in self._populations:
            population.load({key: state[f"{name}.{key}"] for key in population.state()})

    @property
    def _populations(self) -> tuple[tuple[str, Population], tuple[str, Population]]:
        return ("ordinary", self.ordinary), ("all", self.all_rows)
