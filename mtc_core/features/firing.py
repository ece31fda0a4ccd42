"""How often each latent is on, how strongly, and together with which latents of earlier groups.

B rows · F latents · n nonzeros, in row-major order · E latents of earlier groups
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtc_core.selection import Kept

# Of one transcoder, 4 bytes each. What is beyond it compares latents with the first groups only.
MOST_PAIRS = 1 << 27


class Firing:
    """Exact counts over all rows."""

    def __init__(self, d_sae: int, device: str | torch.device = "cpu") -> None:
        self.rows = 0
        self.fired_F = torch.zeros(d_sae, dtype=torch.int64, device=device)
        self.sum_F = torch.zeros(d_sae, dtype=torch.float64, device=device)
        self.max_F = torch.zeros(d_sae, device=device)

    def add(self, kept: Kept, n_rows: int) -> None:
        self.rows += n_rows
        self.fired_F += torch.bincount(kept.latents_n, minlength=len(self.fired_F))
        self.sum_F.index_add_(0, kept.latents_n, kept.acts_n.double())
        self.max_F.scatter_reduce_(0, kept.latents_n, kept.acts_n.float(), "amax")

    @property
    def mean_F(self) -> Tensor:
        """Of the rows on which a latent is on; 0 where there is none."""
        return self.sum_F / self.fired_F.clamp(min=1)


class TogetherCounts:
    """On how many rows a latent was on together with each latent of the groups before its own.

    Exact, for all pairs: as fast as counting a shortlist (a row has few nonzeros), and no
    shortlist made from the weights holds enough of the parents (benchmarks/LOG.md). Where the
    pairs would be more than MOST_PAIRS, of the first groups only."""

    def __init__(
        self, group_sizes: Sequence[int], device: str | torch.device = "cpu", most: int = MOST_PAIRS
    ) -> None:
        self.widths = (0, *torch.tensor(group_sizes).cumsum(0).tolist())
        sizes = shapes(group_sizes, most)
        self.counts = [torch.zeros(s, dtype=torch.int32, device=device) for s in sizes]
        widths_M = torch.tensor(self.widths[1:], device=device)
        group_F = torch.bucketize(
            torch.arange(self.widths[-1], device=device), widths_M, right=True
        )
        self._group_F = group_F

    def add(self, kept: Kept, n_rows: int) -> None:
        below_BM = self._below(kept, n_rows)
        sizes_B = torch.bincount(kept.rows_n, minlength=n_rows)
        starts_B = sizes_B.cumsum(0) - sizes_B
        group_n = self._group_F[kept.latents_n]
        for group, counts_FE in enumerate(self.counts):
            if not counts_FE.shape[1]:
                continue
            prefix = self.widths.index(counts_FE.shape[1])
            children_n = (group_n == group).nonzero().squeeze(1)
            rows = kept.rows_n[children_n]
            # Latents ascend within a row, so the earlier ones are the first of their row.
            sizes = below_BM[rows, prefix]
            pair_child = children_n.repeat_interleave(sizes)
            ends = sizes.cumsum(0)
            everyone = torch.arange(len(pair_child), device=pair_child.device)
            within = everyone - (ends - sizes).repeat_interleave(sizes)
            pair_parent = starts_B[kept.rows_n[pair_child]] + within
            child = kept.latents_n[pair_child] - self.widths[group]
            flat = child * counts_FE.shape[1] + kept.latents_n[pair_parent]
            ones = torch.ones_like(flat, dtype=torch.int32)
            counts_FE.view(-1).index_add_(0, flat, ones)

    def _below(self, kept: Kept, n_rows: int) -> Tensor:
        """Nonzeros of each row among the latents of the first 0, 1, … groups: [B, M + 1]."""
        n_groups = len(self.counts)
        bags_n = kept.rows_n * n_groups + self._group_F[kept.latents_n]
        by_group_BM = torch.bincount(bags_n, minlength=n_rows * n_groups).view(n_rows, n_groups)
        return torch.nn.functional.pad(by_group_BM.cumsum(1), (1, 0))


def shapes(group_sizes: Sequence[int], most: int = MOST_PAIRS) -> list[tuple[int, int]]:
    """For each group: its size, and how many latents of earlier groups it is compared with. Whole
    groups, as many as there is room for."""
    for groups in range(len(group_sizes), 0, -1):
        sizes = [(size, sum(group_sizes[: min(g, groups)])) for g, size in enumerate(group_sizes)]
        if sum(a * b for a, b in sizes) <= most:
            return sizes
    return [(size, 0) for size in group_sizes]


def pairs(group_sizes: Sequence[int], most: int = MOST_PAIRS) -> int:
    """How many counts that makes."""
    return sum(a * b for a, b in shapes(group_sizes, most))
