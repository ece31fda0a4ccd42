"""The strongest contexts of every latent, in one pass over a text of any length.

For each latent the n contexts in which its largest activation is largest, each with that latent's
activations around the peak, so that no second forward is needed. What is kept depends on the text
alone, not on how it is cut into batches: equals go to the earlier context, and within one to the
earlier position.

B rows · F latents · n contexts of a latent · W window: so many positions around a peak, in its
middle · P entries, each the peak of a latent in a context · L latents with entries
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtc_core.selection import Kept

NOBODY = torch.iinfo(torch.int64).max  # context number of an empty place


class StrongestContexts:
    """Memory is F × n × W numbers, whatever the length of the text."""

    def __init__(self, d_sae: int, n: int, window: int, device: str | torch.device = "cpu") -> None:
        """n: contexts of each latent. window: positions kept before the peak, and after it."""
        assert n > 0 and window >= 0, (n, window)
        self.n, self.window = n, window
        self.values_Fn = torch.zeros(d_sae, n, device=device)
        self.contexts_Fn = torch.full((d_sae, n), NOBODY, device=device)
        self.positions_Fn = torch.zeros(d_sae, n, dtype=torch.int64, device=device)
        self.acts_FnW = torch.zeros(d_sae, n, 2 * window + 1, device=device)

    def add(self, acts_BF: Tensor, contexts_B: Tensor, positions_B: Tensor, kept: Kept) -> None:
        """Take rows in reading order, all rows of a context in one call. kept: their nonzeros."""
        if not kept.latents_n.numel():
            return
        numbers_C, context_B = contexts_B.unique_consecutive(return_inverse=True)
        peaks_P = _peaks(kept, context_B, len(numbers_C))
        rows_P, latents_P = kept.rows_n[peaks_P], kept.latents_n[peaks_P]
        values_P, contexts_P = kept.acts_n[peaks_P].float(), contexts_B[rows_P]
        better_P = self._better(latents_P, values_P, contexts_P).nonzero().squeeze(1)
        rank_P, order_P = _ranks(latents_P[better_P], values_P[better_P], contexts_P[better_P])
        chosen_P = better_P[order_P[rank_P < self.n]]
        rank_P = rank_P[rank_P < self.n]
        if not chosen_P.numel():
            return
        rows_P = rows_P[chosen_P]
        acts_PW = _windows(
            acts_BF, context_B, positions_B, rows_P, latents_P[chosen_P], self.window
        )
        touched_L, place_P = latents_P[chosen_P].unique_consecutive(return_inverse=True)
        self._offer(
            touched_L,
            _spread(values_P[chosen_P], place_P, rank_P, len(touched_L), self.n, 0),
            _spread(contexts_P[chosen_P], place_P, rank_P, len(touched_L), self.n, NOBODY),
            _spread(positions_B[rows_P], place_P, rank_P, len(touched_L), self.n, 0),
            _spread(acts_PW, place_P, rank_P, len(touched_L), self.n, 0),
        )

    def merge(self, other: StrongestContexts) -> None:
        """Take what another has found in other contexts of the same text."""
        assert (self.n, self.window) == (other.n, other.window)
        all_F = torch.arange(len(self.values_Fn), device=self.values_Fn.device)
        self._offer(all_F, other.values_Fn, other.contexts_Fn, other.positions_Fn, other.acts_FnW)

    def _better(self, latents_P: Tensor, values_P: Tensor, contexts_P: Tensor) -> Tensor:
        """Entries that would displace the weakest of their latent: few, once a text is under
        way."""
        weakest_P = self.values_Fn[latents_P, -1]
        earlier_P = contexts_P < self.contexts_Fn[latents_P, -1]
        return (values_P > weakest_P) | ((values_P == weakest_P) & earlier_P)

    def _offer(
        self, latents_L: Tensor, values: Tensor, contexts: Tensor, positions: Tensor, acts: Tensor
    ) -> None:
        """The best n of what is here and what is offered, for some latents."""
        values = torch.cat([self.values_Fn[latents_L], values], 1)
        contexts = torch.cat([self.contexts_Fn[latents_L], contexts], 1)
        positions = torch.cat([self.positions_Fn[latents_L], positions], 1)
        acts = torch.cat([self.acts_FnW[latents_L], acts], 1)
        by_context = contexts.argsort(dim=1, stable=True)
        by_value = values.gather(1, by_context).argsort(dim=1, descending=True, stable=True)
        order = by_context.gather(1, by_value)[:, : self.n]
        self.values_Fn[latents_L] = values.gather(1, order)
        self.contexts_Fn[latents_L] = contexts.gather(1, order)
        self.positions_Fn[latents_L] = positions.gather(1, order)
        wide = order[:, :, None].expand(-1, -1, acts.shape[2])
        self.acts_FnW[latents_L] = acts.gather(1, wide)


def _peaks(kept: Kept, context_B: Tensor, n_contexts: int) -> Tensor:
    """Which nonzeros are the largest of their latent in their context, one for each such pair,
    ordered by latent, then context."""
    pair_n = kept.latents_n * n_contexts + context_B[kept.rows_n]
    order_n = pair_n.argsort(stable=True)  # rows stay in reading order within a pair
    _, pair_n, sizes_P = pair_n[order_n].unique_consecutive(return_inverse=True, return_counts=True)
    values_n = kept.acts_n[order_n]
    largest_P = torch.segment_reduce(values_n.float(), "max", lengths=sizes_P)
    at_peak_n = (values_n.float() == largest_P[pair_n]).nonzero().squeeze(1)
    pairs = pair_n[at_peak_n]
    first = torch.ones_like(pairs, dtype=torch.bool)
    first[1:] = pairs[1:] != pairs[:-1]
    return order_n[at_peak_n[first]]


def _ranks(latents_P: Tensor, values_P: Tensor, contexts_P: Tensor) -> tuple[Tensor, Tensor]:
    """Rank of each entry among those of its latent, and the order in which these ranks stand."""
    order_P = contexts_P.argsort(stable=True)
    order_P = order_P[values_P[order_P].argsort(descending=True, stable=True)]
    order_P = order_P[latents_P[order_P].argsort(stable=True)]
    _, sizes_L = latents_P[order_P].unique_consecutive(return_counts=True)
    starts_L = sizes_L.cumsum(0) - sizes_L
    everyone_P = torch.arange(len(order_P), device=order_P.device)
    return everyone_P - starts_L.repeat_interleave(sizes_L), order_P


def _windows(
    acts_BF: Tensor,
    context_B: Tensor,
    positions_B: Tensor,
    rows_P: Tensor,
    latents_P: Tensor,
    window: int,
) -> Tensor:
    """Activations [P, W] of each entry's latent around its row; 0 where there is no row."""
    width = int(positions_B.max()) + 1 + 2 * window  # room for windows that reach beyond
    n_contexts = int(context_B[-1]) + 1
    row_of = torch.full((n_contexts * width,), -1, device=rows_P.device)
    row_of[context_B * width + positions_B + window] = torch.arange(
        len(context_B), device=rows_P.device
    )
    first_P = context_B[rows_P] * width + positions_B[rows_P]
    offsets_W = torch.arange(2 * window + 1, device=rows_P.device)
    rows_PW = row_of[first_P[:, None] + offsets_W]
    acts_PW = acts_BF[rows_PW.clamp(min=0), latents_P[:, None]].float()
    return acts_PW.where(rows_PW >= 0, 0)


def _spread(
    entries: Tensor, place_P: Tensor, rank_P: Tensor, n_latents: int, n: int, empty: int
) -> Tensor:
    """Entries as rows of a table [L, n, …], by their latent and their rank."""
    table = entries.new_full((n_latents, n, *entries.shape[1:]), empty)
    table[place_P, rank_P] = entries
    return table
