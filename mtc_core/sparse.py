"""Products with the few nonzeros of a step: decoding, and the gradients that touch them.

Each nonzero is read once whatever the number of groups is. Portable torch: embedding bags for
what is gathered by row, a latent-major sparse matrix for what is summed by latent.

B rows · M groups · F latents · n nonzeros (row-major) · I, O source and target widths
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from mtc_core.selection import Kept


class Bags:
    """The nonzeros of a step sorted into bags, one for each (row, group)."""

    def __init__(self, kept: Kept, group_of_latent_F: Tensor, n_rows: int, n_groups: int) -> None:
        self.kept = kept
        self.n_rows, self.n_groups = n_rows, n_groups
        # Groups are contiguous and nonzeros ascend within a row, so bags ascend too.
        self.bags_n = kept.rows_n * n_groups + group_of_latent_F[kept.latents_n]
        sizes = torch.bincount(self.bags_n, minlength=n_rows * n_groups)
        self.offsets = torch.cumsum(sizes, 0) - sizes

    def decode(self, W_dec_FO: Tensor) -> Tensor:
        """Each group's own contribution to the output, [B, M, O], without bias."""
        out = F.embedding_bag(
            self.kept.latents_n,
            W_dec_FO,
            self.offsets,
            mode="sum",
            per_sample_weights=self.kept.acts_n,
        )
        return out.view(self.n_rows, self.n_groups, W_dec_FO.shape[1])

    def dot(self, dense_BMO: Tensor, W_FO: Tensor) -> Tensor:
        """For every nonzero, the inner product of its bag's row with its latent's row: [n]."""
        return _bag_dot(dense_BMO.flatten(0, 1), W_FO, self.kept, self.offsets, self.bags_n)


def row_dot(x_BI: Tensor, W_FI: Tensor, rows_n: Tensor, latents_n: Tensor) -> Tensor:
    """⟨x[row], W[latent]⟩ for every listed entry: [n]. Entries must ascend by row."""
    sizes = torch.bincount(rows_n, minlength=x_BI.shape[0])
    offsets = torch.cumsum(sizes, 0) - sizes
    return _bag_dot(x_BI, W_FI, Kept(rows_n, latents_n, rows_n), offsets, rows_n)


def _bag_dot(dense: Tensor, W: Tensor, kept: Kept, offsets: Tensor, bags_n: Tensor) -> Tensor:
    # The backward of an embedding bag with respect to its sample weights *is* this product, and
    # on two cores it is 13 times faster than gathering both sides.
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        dense.contiguous(), W, kept.latents_n, offsets, bags_n, 0
    )


class LatentMajor:
    """The nonzeros of a step in latent order, for sums over rows that end in one row a latent."""

    def __init__(self, kept: Kept, d_sae: int) -> None:
        self.d_sae = d_sae
        # torch sorts short integers three times as fast (benchmarks/LOG.md).
        narrow = torch.int16 if d_sae <= 1 << 15 else torch.int32
        self.order_n = kept.latents_n.to(narrow).argsort(stable=True)
        counts = torch.bincount(kept.latents_n, minlength=d_sae)
        self.counts_F = counts
        self.starts = F.pad(torch.cumsum(counts, 0), (1, 0))

    def gradient(self, values_n: Tensor, columns_n: Tensor, dense_CD: Tensor) -> Tensor:
        """Σ_n value_n · dense[column_n] into the row of each nonzero's latent: [F, D]."""
        matrix = _csr(
            self.starts,
            columns_n[self.order_n],
            values_n[self.order_n],
            (self.d_sae, dense_CD.shape[0]),
        )
        return matrix @ dense_CD

    def sums(self, values_n: Tensor) -> Tensor:
        """Σ_n value_n by latent: [F]."""
        # Segments, not index_add: on a GPU the latter adds in any order.
        return torch.segment_reduce(
            values_n[self.order_n], "sum", lengths=self.counts_F, unsafe=True, initial=0
        )


def _csr(starts: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(starts, columns, values, size, check_invariants=False)


def _silence_beta_notice() -> None:
    # torch says once per process that CSR support is in beta; users cannot act on it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _csr(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1))


_silence_beta_notice()
