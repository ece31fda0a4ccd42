"""The line that a transcoder must beat: a ridge regression from source to target.

Fitted on the training rows themselves, from totals gathered while training: no forward pass more.
The first quarter of each step's rows goes in, which are shuffled: with all of them the first steps
took a third longer. ROWS_PER_DIMENSION × d_in rows are enough, so gathering then stops.

B rows · I, O source and target widths
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS_PER_DIMENSION = 128
PARTS = 4  # of a step's rows, one of which is used
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # times the mean squared source coordinate; best one is used


Inner = Callable[[Tensor, Tensor], Tensor]  # aᵀ b


def inner(a_BI: Tensor, b_BO: Tensor) -> Tensor:
    return a_BI.T @ b_BO


@dataclass(frozen=True, slots=True)
class Ridge:
    """ŷ = x W + b in raw units."""

    W_IO: Tensor
    b_O: Tensor

    def __call__(self, x_BI: Tensor) -> Tensor:
        return torch.addmm(self.b_O, x_BI.to(self.W_IO.dtype), self.W_IO)


class RidgeTotals:
    """Second moments of scaled rows; part of a trainer's state. Products of a batch in float32,
    their sums in float64.

    `rows` counts those looked at. Extreme ones are among them, as zeros: how many are not is in the
    last entry of `xx`, and asking for it in a step would have a GPU wait."""

    def __init__(self, d_in: int, d_out: int, device: torch.device, inner: Inner = inner) -> None:
        # A constant column carries the means and the intercept.
        self.xx = torch.zeros(d_in + 1, d_in + 1, dtype=torch.float64, device=device)
        self.xy = torch.zeros(d_in + 1, d_out, dtype=torch.float64, device=device)
        self.rows = 0
        self._inner = inner
        self.wanted = ROWS_PER_DIMENSION * d_in

    def add(self, x_BI: Tensor, y_BO: Tensor, weight_B: Tensor) -> None:
        """Add rows of a step that training gives full weight."""
        if self.rows >= self.wanted:
            return
        part = slice(-(-x_BI.shape[0] // PARTS))
        x_BI = torch.nn.functional.pad(x_BI[part], (0, 1), value=1.0)
        x_BI *= (weight_B[part] == 1)[:, None]
        self.xx += self._inner(x_BI, x_BI).double()
        self.xy += self._inner(x_BI, y_BO[part]).double()
        self.rows += x_BI.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        return {"xx": self.xx, "xy": self.xy, "rows": torch.tensor(self.rows)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.xx.copy_(tensors["xx"])
        self.xy.copy_(tensors["xy"])
        self.rows = int(tensors["rows"])

    def solve(self, penalty: float) -> Tensor:
        """The map [d_in + 1, d_out] in scaled units; its last row is the intercept."""
        rows = int(self.xx[-1, -1])
        if not rows:
            return torch.zeros_like(self.xy)  # no row seen: the mean is all there is
        d_in = self.xx.shape[0] - 1
        ridge = torch.full((d_in + 1,), penalty, dtype=torch.float64, device=self.xx.device)
        ridge *= self.xx.diagonal()[:d_in].mean()
        ridge[d_in] = 1e-9 * rows  # the intercept is not shrunk
        return torch.linalg.solve(self.xx + torch.diag(ridge), self.xy)
