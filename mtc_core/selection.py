"""Which latents stay on: TopK keeps k a row, BatchTopK keeps the largest of the whole batch.

Both are exact. Ties go to the lowest flat index, so that the result depends on the values alone
and not on how a library's top-k orders equals. BatchTopK first collects the few entries near or
above the last step's cut and ranks only those; the ranking, not the collecting, decides.

B rows · F latents · n kept nonzeros, in row-major order
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

WORD = 8  # booleans in an int64

Rescore = Callable[[Tensor], Tensor]  # flat indices n -> their exact pre-activations n
Above = Callable[[float], tuple[Tensor, Tensor]]  # bound -> ascending flat indices n, values n


@dataclass(frozen=True, slots=True)
class Kept:
    """The positive activations that survive selection, ascending in flat index row * F + latent."""

    rows_n: Tensor
    latents_n: Tensor
    acts_n: Tensor

    @property
    def number(self) -> int | Tensor:
        """How many there are."""
        return self.acts_n.numel()

    def reset(self, counters_F: Tensor) -> None:
        """Set the counters of latents that are on to 0."""
        counters_F[self.latents_n] = 0

    @classmethod
    def from_flat(cls, flat_n: Tensor, acts_n: Tensor, d_sae: int) -> Kept:
        rows_n = torch.div(flat_n, d_sae, rounding_mode="floor")
        return cls(rows_n, flat_n - rows_n * d_sae, acts_n)

    @classmethod
    def from_dense(cls, acts_BF: Tensor) -> Kept:
        """All positive entries of a dense activation matrix."""
        flat_n = few_above(acts_BF.reshape(-1), 0.0)
        return cls.from_flat(flat_n, acts_BF.reshape(-1)[flat_n], acts_BF.shape[1])


class Search(Protocol):
    """How candidates are found and ranked: in every form with the results of `Searching`."""

    def above(self, values_N: Tensor, bound: float) -> tuple[Tensor, Tensor]: ...

    def least(self, values_N: Tensor, wanted: int) -> float: ...

    def rank(self, flat_n: Tensor, values_n: Tensor, budget: int, d_sae: int) -> Kept: ...


class Searching:
    """In plain torch."""

    def above(self, values_N: Tensor, bound: float) -> tuple[Tensor, Tensor]:
        """Ascending indices of the values above a bound that few are above, and those values."""
        flat_n = few_above(values_N, bound)
        return flat_n, values_N[flat_n]

    def least(self, values_N: Tensor, wanted: int) -> float:
        """The `wanted`-th largest value, or 0 if that is not positive."""
        return float(values_N.topk(wanted, sorted=False).values.min().clamp(min=0))

    def rank(self, flat_n: Tensor, values_n: Tensor, budget: int, d_sae: int) -> Kept:
        """The `budget` largest positive values, at ascending flat indices; equals go to the
        lowest."""
        keep_n = largest(values_n, budget)
        return Kept.from_flat(flat_n[keep_n], values_n[keep_n], d_sae)


class BatchTopK:
    """Keeps the `budget` largest positive entries of a batch.

    `cut` is the smallest value kept last time and `margin` the share of it above which entries
    become candidates. Both are memory of where to look: they change the time, never the result.
    """

    FEWEST, MOST = 1.2, 1.5  # candidates wanted, as multiples of the budget
    LOWER = 0.7  # of the bound, where it left too few

    def __init__(self, cut: float = 0.0, margin: float = 0.95) -> None:
        self.cut = cut
        self.margin = margin

    def __call__(
        self,
        pre_BF: Tensor,
        budget: int,
        rescore: Rescore | None = None,
        search: Search | None = None,
    ) -> Kept:
        """Select from pre-activations. `rescore` supplies exact values where `pre_BF` is rounded
        (bf16 leaves thousands of ties at the cut); ranking then uses those. `search`: a faster
        form of what this file does, with equal results."""
        search = search or Searching()
        # Rounding may have pushed some of the largest below the filter, so leave it room.
        enough = budget if rescore is None else int(budget * self.FEWEST)
        flat_n, values_n = self._candidates(pre_BF.reshape(-1), budget, enough, search)
        if rescore is not None:
            values_n = rescore(flat_n)
        return self._ranked(flat_n, values_n, budget, pre_BF.shape[1], search)

    def from_above(self, above: Above, budget: int, d_sae: int, search: Search) -> Kept | None:
        """The same from what is exactly above a bound; None where too few were, and one has to
        look at them all."""
        found = self._found(above, budget, budget)
        return found and self._ranked(*found, budget, d_sae, search)

    def _ranked(
        self, flat_n: Tensor, values_n: Tensor, budget: int, d_sae: int, search: Search
    ) -> Kept:
        kept = search.rank(flat_n, values_n, budget, d_sae)
        if kept.acts_n.numel() == budget:
            self.cut = float(kept.acts_n.min()) if budget else 0.0
        return kept

    def _found(self, above: Above, budget: int, enough: int) -> tuple[Tensor, Tensor] | None:
        if self.cut <= 0:
            return None
        found = above(self.margin * self.cut)
        self._adapt(found[0].numel() / max(1, budget))
        if found[0].numel() < enough:  # looking once more is far cheaper than the slow way
            found = above(self.LOWER * self.margin * self.cut)
        return found if found[0].numel() >= enough else None

    def _candidates(
        self, flat_F: Tensor, budget: int, enough: int, search: Search
    ) -> tuple[Tensor, Tensor]:
        found = self._found(lambda bound: search.above(flat_F, bound), budget, enough)
        if found is not None:
            return found
        flat_n = self._all_that_could_count(flat_F, budget, search)
        return flat_n, flat_F[flat_n]

    def _adapt(self, ratio: float) -> None:
        if ratio > self.MOST:
            self.margin = min(0.995, self.margin + 0.01)
        elif ratio < self.FEWEST:
            self.margin = max(0.5, self.margin - 0.01)

    def _all_that_could_count(self, flat_F: Tensor, budget: int, search: Search) -> Tensor:
        """The slow way: a full top-k, with room for what rounding may have swapped."""
        wanted = min(flat_F.numel(), int(budget * self.FEWEST))
        if not wanted:
            return torch.zeros(0, dtype=torch.long, device=flat_F.device)
        least = search.least(flat_F, wanted)
        return ((flat_F >= least) & (flat_F > 0)).nonzero().squeeze(1)


def few_above(values_N: Tensor, bound: float) -> Tensor:
    """Ascending indices of the values above a bound that few of many are above.

    On a CPU numpy compares several times as fast as torch, which then looks for what is true one
    entry at a time: eight of them as one word are looked at together first."""
    size = values_N.numel()
    if values_N.device.type != "cpu" or not size or size % WORD:
        return (values_N > bound).nonzero().squeeze(1)
    mask_N = _above(values_N.detach(), bound)
    words_n = mask_N.view(torch.int64).nonzero().squeeze(1)
    places_n = mask_N.view(-1, WORD)[words_n].view(-1).nonzero().squeeze(1)
    return words_n[places_n // WORD] * WORD + places_n % WORD


def _above(values_N: Tensor, bound: float) -> Tensor:
    if values_N.dtype == torch.bfloat16 and bound >= 0:
        # Bits of what is not negative are in the order of the values, and numpy has no bfloat16.
        bits_N = values_N.view(torch.int16).numpy()
        bound_bits, inf_bits = values_N.new_tensor([bound, math.inf]).view(torch.int16).numpy()
        above_N = np.greater(bits_N, bound_bits)
        return torch.from_numpy(np.logical_and(above_N, bits_N <= inf_bits, out=above_N))
    if values_N.dtype in (torch.float32, torch.float64):
        array = values_N.numpy()
        return torch.from_numpy(np.greater(array, array.dtype.type(bound)))
    return values_N > bound


def largest(values_n: Tensor, budget: int) -> Tensor:
    """Boolean mask of the `budget` largest positive values; equals go to the lowest index."""
    keep_n = values_n > 0
    surplus = int(keep_n.sum()) - budget
    if surplus <= 0:
        return keep_n
    if budget == 0:
        return torch.zeros_like(keep_n)
    cut = values_n.topk(budget, sorted=False).values.min()
    keep_n = values_n > cut
    at_cut_n = (values_n == cut).nonzero().squeeze(1)
    keep_n[at_cut_n[: budget - int(keep_n.sum())]] = True
    return keep_n


def keep_largest(rows_BD: Tensor, k: int) -> Tensor:
    """The rows with all but the k largest entries of each set to 0."""
    values_Bk, places_Bk = topk_lowest_index(rows_BD, k)
    return torch.zeros_like(rows_BD).scatter_(1, places_Bk, values_Bk)


def topk_rows(pre_BF: Tensor, k: int, rescore: Rescore | None = None) -> Kept:
    """Keep the k largest positive entries of every row; `rescore` as in BatchTopK."""
    rows_B1 = torch.arange(pre_BF.shape[0], device=pre_BF.device)[:, None]
    if rescore is None:
        values_Bk, latents_Bk = topk_lowest_index(pre_BF, k)
    else:
        wide = min(pre_BF.shape[1], k + k // 4 + 8)  # room for what rounding may have swapped
        rounded_BW, latents_BW = topk_lowest_index(pre_BF, wide)
        exact_BW = rescore((rows_B1 * pre_BF.shape[1] + latents_BW).flatten()).view_as(latents_BW)
        exact_BW = exact_BW.where(rounded_BW > 0, 0)  # a row emptied by the caller stays empty
        values_Bk, picked_Bk = topk_lowest_index(exact_BW, k)
        latents_Bk = latents_BW.gather(1, picked_Bk)
    on_Bk = values_Bk > 0
    return Kept(rows_B1.expand_as(latents_Bk)[on_Bk], latents_Bk[on_Bk], values_Bk[on_Bk])


def topk_lowest_index(pre_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and ascending indices of the k largest of each row; positive equals go to the lowest
    index. Which of several equals at or below 0 is taken is open: none of them counts."""
    more = min(k + 1, pre_BF.shape[1])
    values_Bk, latents_Bk = pre_BF.topk(more)
    if more > k:
        cut_B = values_Bk[:, k - 1]
        tied_R = ((values_Bk[:, k] == cut_B) & (cut_B > 0)).nonzero().squeeze(1)
        values_Bk, latents_Bk = values_Bk[:, :k], latents_Bk[:, :k]
        if tied_R.numel():
            lowest_Rk = _lowest_at_cut(pre_BF[tied_R], values_Bk[tied_R], latents_Bk[tied_R])
            latents_Bk = latents_Bk.index_copy(0, tied_R, lowest_Rk)
    latents_Bk = latents_Bk.sort(dim=1).values
    return pre_BF.gather(1, latents_Bk), latents_Bk


def _lowest_at_cut(pre_RF: Tensor, values_Rk: Tensor, latents_Rk: Tensor) -> Tensor:
    """The k largest of each row, with the lowest of all entries that equal the smallest of them in
    the places of those that a top-k happened to take."""
    # Most rows of a bfloat16 step are tied, and ordering them whole took 16 times their top-k.
    cut_R1 = values_Rk[:, -1:]
    row_n, latent_n = (pre_RF == cut_R1).nonzero(as_tuple=True)
    counts_R = torch.bincount(row_n, minlength=len(pre_RF))
    rank_n = torch.arange(len(row_n), device=row_n.device) - (counts_R.cumsum(0) - counts_R)[row_n]
    place_n = (values_Rk != cut_R1).sum(1)[row_n] + rank_n  # they come last: values descend
    fits_n = place_n < values_Rk.shape[1]
    places = (row_n[fits_n], place_n[fits_n])
    return latents_Rk.index_put(places, latent_n[fits_n])
