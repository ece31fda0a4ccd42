"""What training needs to know of a pair of sites before its first step, and then never changes.

One pass over block 0, in float64: centres μ and ν, scales a and c with E‖a(x − μ)‖² = d_in and
E‖c(y − ν)‖² = d_out, and the medians that tell an extreme row. All but the medians use ordinary
rows only: a few rows of one common word can hold most of a site's variance.

N rows of block 0 · B rows of a step · I, O source and target widths
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mtc_core.config import EXTREME_FACTOR, Extreme
from mtc_core.errors import TrainingStopped
from mtc_core.objective import Batch

MAX_ROUNDS = 10
Scaled = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairStatistics:
    """Frozen statistics of one (source, target) pair; scalars are Python floats."""

    mu_I: Tensor  # float64
    nu_O: Tensor  # float64
    a: float
    c: float
    variance: float  # V = E‖y − ν‖² over ordinary rows, raw units
    median_x: float  # median over all rows of ‖x − μ‖
    median_y: float
    extreme_share: float  # of block 0's rows

    def is_extreme(self, distance_x_B: Tensor, distance_y_B: Tensor) -> Tensor:
        """Rows far from the centre of either site, given ‖x − μ‖ and ‖y − ν‖: bool [B].

        The source alone shows none of them where the target is massive (maths: extreme rows)."""
        return is_far(distance_x_B, distance_y_B, self.median_x, self.median_y)

    def to(self, device: torch.device) -> PairStatistics:
        """The same statistics with their centres on a device."""
        return replace(self, mu_I=self.mu_I.to(device), nu_O=self.nu_O.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """All values as float64 tensors, for a checkpoint."""
        return {
            f.name: torch.as_tensor(getattr(self, f.name), dtype=torch.float64)
            for f in fields(self)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> PairStatistics:
        values: dict[str, Any] = {
            f.name: tensors[f.name].double() if tensors[f.name].dim() else float(tensors[f.name])
            for f in fields(cls)
        }
        return cls(**values)


@torch.no_grad()
def measure_pair(x_NI: Tensor, y_NO: Tensor) -> PairStatistics:
    """Statistics of a pair from raw rows of block 0.

    Raises TrainingStopped where a site is constant or not finite: nothing can be trained there.
    """
    ordinary_N = torch.ones(x_NI.shape[0], dtype=torch.bool, device=x_NI.device)
    # The centre moves when extreme rows leave it, and with it who is extreme: a few rounds settle.
    for rounds_left in range(MAX_ROUNDS, 0, -1):
        mu_I, nu_O = _mean(x_NI, ordinary_N), _mean(y_NO, ordinary_N)
        distance_x, distance_y = row_distance(x_NI, mu_I), row_distance(y_NO, nu_O)
        median_x, median_y = float(distance_x.median()), float(distance_y.median())
        extreme_N = is_far(distance_x, distance_y, median_x, median_y)
        if rounds_left == 1 or torch.equal(ordinary_N, ~extreme_N):
            break  # all figures below are of the centres just measured
        ordinary_N = ~extreme_N
    power_x = float(distance_x[ordinary_N].square().mean())
    variance = float(distance_y[ordinary_N].square().mean())
    for side, power in (("source", power_x), ("target", variance)):
        if not (power > 0 and power < float("inf")):
            raise TrainingStopped(
                f"the {side} site has {'constant' if power == 0 else 'non-finite'} activations on "
                "the first block of training rows; choose another site, or model.dtype: float32"
            )
    return PairStatistics(
        mu_I=mu_I,
        nu_O=nu_O,
        a=(x_NI.shape[1] / power_x) ** 0.5,
        c=(y_NO.shape[1] / variance) ** 0.5,
        variance=variance,
        median_x=median_x,
        median_y=median_y,
        extreme_share=float((~ordinary_N).double().mean()),
    )


def row_distance(rows_BD: Tensor, centre_D: Tensor) -> Tensor:
    """‖row − centre‖ of every row, float64 [B]."""
    # In slices: float64 copies of a whole block would double the memory of a run.
    parts = [(part.double() - centre_D).norm(dim=1) for part in rows_BD.split(4096)]
    return torch.cat(parts)


def _mean(rows_ND: Tensor, chosen_N: Tensor) -> Tensor:
    total = rows_ND.new_zeros(rows_ND.shape[1], dtype=torch.float64)
    for rows, chosen in zip(rows_ND.split(4096), chosen_N.split(4096), strict=True):
        total += rows[chosen].double().sum(0)
    return total / chosen_N.sum().clamp(min=1)


def is_far(distance_x: Tensor, distance_y: Tensor, median_x: float, median_y: float) -> Tensor:
    far_x = distance_x > EXTREME_FACTOR * median_x
    return far_x | (distance_y > EXTREME_FACTOR * median_y)


def scaled_rows(rows_BD: Tensor, centre_D: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(row − centre) · scale, and ‖row − centre‖ of every row."""
    centred_BD = rows_BD - centre_D
    distance_B = torch.linalg.vector_norm(centred_BD, dim=1)
    return centred_BD.mul_(scale), distance_B


class Scaler:
    """Centres and scales rows with frozen statistics, and says which rows are extreme."""

    def __init__(
        self,
        statistics: PairStatistics,
        extreme: Extreme,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        scaled: Scaled = scaled_rows,
    ) -> None:
        """scaled: a faster form of `scaled_rows`."""
        self._scaled = scaled
        self.statistics = statistics
        self.extreme = extreme
        self.mu_I = statistics.mu_I.to(device, dtype)
        self.nu_O = statistics.nu_O.to(device, dtype)

    def __call__(self, x_raw_BI: Tensor, y_raw_BO: Tensor) -> tuple[Batch, Tensor]:
        """The scaled batch, and which of its rows are extreme (bool [B])."""
        s = self.statistics
        x_BI, distance_x = self._scaled(x_raw_BI.to(self.mu_I.dtype), self.mu_I, s.a)
        y_BO, distance_y = self._scaled(y_raw_BO.to(self.nu_O.dtype), self.nu_O, s.c)
        extreme_B = s.is_extreme(distance_x, distance_y)
        weight_B = self._weights(distance_y, extreme_B)
        count = (weight_B > 0).sum().clamp(min=1).to(weight_B.dtype)
        ordinary_B = (~extreme_B).to(weight_B.dtype)
        return Batch(x_BI, y_BO, weight_B, ordinary_B, count), extreme_B

    def _weights(self, distance_y: Tensor, extreme_B: Tensor) -> Tensor:
        match self.extreme:
            case "mask":
                return (~extreme_B).to(distance_y.dtype)
            case "bound":
                limit = EXTREME_FACTOR * self.statistics.median_y
                return (limit / distance_y.clamp(min=limit)).square()
            case "keep":
                return torch.ones_like(distance_y)
