"""Sparse products against the dense formulas that they stand for."""

import pytest
import torch

from mtc_core.selection import Kept
from mtc_core.sparse import Bags, LatentMajor, row_dot

ROWS, IN, OUT = 9, 5, 7
CASES = {  # group sizes and the share of entries that are kept
    "some": ((2, 4, 3), 0.3),
    "one group": ((9,), 0.3),
    "one latent a group": ((1,) * 9, 0.3),
    "all": ((2, 4, 3), 1.0),
    "none": ((2, 4, 3), 0.0),
}
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
ALL = pytest.mark.parametrize("case", CASES)


def make(case, dtype):
    sizes, share = CASES[case]
    g = torch.Generator().manual_seed(0)
    acts = torch.rand(ROWS, sum(sizes), generator=g, dtype=torch.float64) + 0.1
    acts = acts * (torch.rand(ROWS, sum(sizes), generator=g) < share)
    if case == "some":
        acts[[0, 4, 8]] = 0  # first, middle and last row empty
        acts[:, 1] = 0  # and a latent that never fires
    group_F = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    acts = acts.to(dtype)
    return acts, Kept.from_dense(acts), group_F, len(sizes), g


def normal(g, dtype, *shape):
    return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)


def assert_near(found, wanted):
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[found.dtype]
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)


@BOTH
@ALL
def test_decode_is_each_groups_own_contribution(case, dtype):
    acts, kept, group_F, m, g = make(case, dtype)
    W = normal(g, dtype, acts.shape[1], OUT)
    wanted = torch.stack([(acts * (group_F == j)) @ W for j in range(m)], 1)
    assert_near(Bags(kept, group_F, ROWS, m).decode(W), wanted)


@BOTH
@ALL
def test_dot_pairs_each_nonzero_with_its_bag_and_its_latent(case, dtype):
    acts, kept, group_F, m, g = make(case, dtype)
    W, dense = normal(g, dtype, acts.shape[1], OUT), normal(g, dtype, ROWS, m, OUT)
    every = torch.einsum("bmo,fo->bmf", dense, W)
    wanted = every[kept.rows_n, group_F[kept.latents_n], kept.latents_n]
    assert_near(Bags(kept, group_F, ROWS, m).dot(dense, W), wanted)


@BOTH
@ALL
def test_row_dot_is_the_listed_entries_of_a_product(case, dtype):
    acts, kept, _, _, g = make(case, dtype)
    x, W = normal(g, dtype, ROWS, IN), normal(g, dtype, acts.shape[1], IN)
    wanted = (x @ W.T)[kept.rows_n, kept.latents_n]
    assert_near(row_dot(x, W, kept.rows_n, kept.latents_n), wanted)


@BOTH
@ALL
def test_latent_major_sums_are_transposed_products(case, dtype):
    acts, kept, group_F, m, g = make(case, dtype)
    by_latent = LatentMajor(kept, acts.shape[1])
    values = normal(g, dtype, kept.acts_n.numel())
    x, dense = normal(g, dtype, ROWS, IN), normal(g, dtype, ROWS * m, OUT)
    scattered = torch.zeros_like(acts)
    scattered[kept.rows_n, kept.latents_n] = values
    assert_near(by_latent.gradient(values, kept.rows_n, x), scattered.T @ x)
    assert_near(by_latent.sums(values), scattered.sum(0))
    in_bags = torch.zeros(ROWS * m, acts.shape[1], dtype=dtype)
    bags = Bags(kept, group_F, ROWS, m).bags_n
    in_bags[bags, kept.latents_n] = values
    assert_near(by_latent.gradient(values, bags, dense), in_bags.T @ dense)
