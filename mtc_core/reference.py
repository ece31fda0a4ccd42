"""What a finished transcoder is held against on new rows: the centres and medians that tell an
extreme row, the mean that stands for no transcoder, and the line that it must beat.

Saved beside the weights, so that text nobody had at training time can be measured alike.

B rows · I, O source and target widths
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mtc_core.ridge import Ridge
from mtc_core.statistics import PairStatistics, is_far, row_distance


@dataclass(frozen=True, slots=True)
class Reference:
    """Frozen at training: everything is of its rows."""

    mu_I: Tensor  # float64, mean of the source over ordinary rows
    nu_O: Tensor  # float64, mean of the target over them
    median_x: float  # of ‖x − μ‖ over all rows
    median_y: float
    ridge: Ridge

    @classmethod
    def of(cls, statistics: PairStatistics, ridge: Ridge) -> Reference:
        s = statistics
        return cls(s.mu_I, s.nu_O, s.median_x, s.median_y, ridge)

    def is_extreme(self, x_BI: Tensor, y_BO: Tensor) -> Tensor:
        """Rows too far from the centre of either site, bool [B] (maths: extreme rows)."""
        distance_x, distance_y = row_distance(x_BI, self.mu_I), row_distance(y_BO, self.nu_O)
        return is_far(distance_x, distance_y, self.median_x, self.median_y)

    def to(self, device: torch.device) -> Reference:
        ridge = Ridge(self.ridge.W_IO.to(device), self.ridge.b_O.to(device))
        return replace(self, mu_I=self.mu_I.to(device), nu_O=self.nu_O.to(device), ridge=ridge)

    def tensors(self) -> dict[str, Tensor]:
        """FORMAT.md has their shapes."""
        medians = torch.tensor([self.median_x, self.median_y], dtype=torch.float64)
        return {
            "mu": self.mu_I,
            "nu": self.nu_O,
            "medians": medians,
            # What a line lost to rounding here is far below what it explains.
            "ridge_W": self.ridge.W_IO.float(),
            "ridge_b": self.ridge.b_O,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Reference:
        ridge = Ridge(tensors["ridge_W"].double(), tensors["ridge_b"].double())
        median_x, median_y = tensors["medians"].tolist()
        return cls(tensors["mu"], tensors["nu"], median_x, median_y, ridge)

    @staticmethod
    def shapes(d_in: int, d_out: int) -> dict[str, tuple[int, ...]]:
        return {
            "mu": (d_in,),
            "nu": (d_out,),
            "medians": (2,),
            "ridge_W": (d_in, d_out),
            "ridge_b": (d_out,),
        }
