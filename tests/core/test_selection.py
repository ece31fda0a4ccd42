"""Selection is exact: values of torch.topk, indices of a stable descending sort."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from mtc_core import selection
from mtc_core.selection import (
    BatchTopK,
    Kept,
    few_above,
    keep_largest,
    largest,
    topk_lowest_index,
    topk_rows,
)


def reference(pre, budget):
    """Flat indices and values that survive: a stable descending sort of the whole batch."""
    flat = pre.flatten()
    order = flat.sort(descending=True, stable=True).indices[:budget]
    order = order[flat[order] > 0].sort().values
    return order, flat[order]


def flat_of(kept, d_sae):
    return kept.rows_n * d_sae + kept.latents_n


def assert_exact(kept, pre, budget):
    wanted, values = reference(pre, budget)
    assert torch.equal(flat_of(kept, pre.shape[1]), wanted)
    assert torch.equal(kept.acts_n, values)
    top = pre.flatten().topk(min(budget, pre.numel())).values.clamp(min=0)
    assert torch.equal(kept.acts_n.sort(descending=True).values, top[top > 0])


def matrix(kind, rows, d_sae, seed):
    pre = torch.randn(rows, d_sae, generator=torch.Generator().manual_seed(seed))
    match kind:
        case "tied":
            return (pre * 2).round()
        case "bf16":
            return pre.bfloat16().float()
        case "negative":
            return -pre.abs() - 0.1
        case "constant":
            return torch.full_like(pre, 0.7)
        case "zero":
            return torch.zeros_like(pre)
    return pre


KINDS = ("random", "tied", "bf16", "negative", "constant", "zero")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 9),
    d_sae=st.integers(1, 40),
    k=st.integers(0, 12),
    seed=st.integers(0, 2**20),
    remembered=st.sampled_from([0.0, 1e-3, 0.5, 0.7, 1.0, 1e9]),
)
def test_batchtopk_equals_a_stable_sort_whatever_it_remembers(
    kind, rows, d_sae, k, seed, remembered
):
    pre = matrix(kind, rows, d_sae, seed)
    assert_exact(BatchTopK(cut=remembered)(pre, k * rows), pre, k * rows)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 9),
    d_sae=st.integers(1, 40),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**20),
)
def test_topk_equals_a_stable_sort_of_each_row(kind, rows, d_sae, k, seed):
    pre = matrix(kind, rows, d_sae, seed)
    k = min(k, d_sae)
    kept = topk_rows(pre, k)
    for row in range(rows):
        mine = kept.rows_n == row
        wanted, values = reference(pre[row : row + 1], k)
        assert torch.equal(kept.latents_n[mine], wanted)
        assert torch.equal(kept.acts_n[mine], values)


class Counted(BatchTopK):
    """Counts how often the slow way is taken, and how many candidates the quick one left."""

    def __init__(self):
        super().__init__()
        self.slow = 0
        self.ratios = []

    def _all_that_could_count(self, flat_F, budget, search):
        self.slow += 1
        return super()._all_that_could_count(flat_F, budget, search)

    def _candidates(self, flat_F, budget, enough, search):
        slow_before = self.slow
        found = super()._candidates(flat_F, budget, enough, search)
        if self.slow == slow_before:
            self.ratios.append(found[0].numel() / budget)
        return found


@pytest.mark.parametrize("rounding", [False, True])
def test_a_long_run_stays_exact_on_the_quick_path_while_the_cut_drifts(rounding):
    generator = torch.Generator().manual_seed(0)
    select, calls = Counted(), 400
    for step in range(calls):
        # Up threefold and down again, with a jitter of a per cent from batch to batch.
        scale = 3 ** (1 - abs(2 * step / calls - 1))
        scale *= 1 + 0.01 * float(torch.randn((), generator=generator))
        pre = scale * torch.randn(64, 256, generator=generator)
        pre = pre.bfloat16().float() if rounding else pre
        assert_exact(select(pre, 64 * 8), pre, 64 * 8)
    assert select.slow < calls / 20
    settled = torch.tensor(select.ratios[20:])
    assert float(settled.median()) < 1.6
    assert float(settled.quantile(0.99)) < 2


def test_a_cut_that_falls_faster_than_the_margin_soon_returns_to_the_quick_path():
    generator = torch.Generator().manual_seed(1)
    select = Counted()
    for step in range(60):
        pre = 0.88**step * torch.randn(64, 256, generator=generator)
        assert_exact(select(pre, 64 * 8), pre, 64 * 8)
    assert select.slow < 20


@pytest.mark.parametrize(("noise", "exact"), [(1e-3, True), (0.2, False)])
def test_rescoring_finds_the_exact_selection_unless_rounding_exceeds_the_margin(noise, exact):
    generator = torch.Generator().manual_seed(2)
    select, missed, budget = BatchTopK(), 0, 64 * 8
    for _ in range(20):
        true = torch.randn(64, 256, generator=generator)
        blurred = true + noise * (torch.rand(64, 256, generator=generator) - 0.5)
        kept = select(blurred, budget, lambda flat_n, true=true: true.flatten()[flat_n])
        wanted, _ = reference(true, budget)
        missed += len(set(wanted.tolist()) - set(flat_of(kept, 256).tolist()))
        assert kept.acts_n.numel() == budget
    assert (missed == 0) is exact


def test_rescoring_breaks_the_ties_that_bf16_makes():
    generator = torch.Generator().manual_seed(3)
    x, W = torch.randn(64, 32, generator=generator), torch.randn(512, 32, generator=generator)
    true = x @ W.T
    rounded = (x.bfloat16() @ W.bfloat16().T).bfloat16()
    select = BatchTopK()
    for _ in range(3):
        kept = select(rounded, 64 * 8, lambda flat_n: true.flatten()[flat_n])
        assert torch.equal(flat_of(kept, 512), reference(true, 64 * 8)[0])
        assert kept.acts_n.dtype == torch.float32
    assert rounded.flatten().topk(64 * 8).values.unique().numel() < 64 * 8 / 2


@pytest.mark.parametrize("cut", [0.0, 0.5])
def test_edges(cut):
    pre = matrix("random", 4, 8, 0)
    assert BatchTopK(cut=cut)(pre, 0).acts_n.numel() == 0
    assert_exact(BatchTopK(cut=cut)(pre, 1000), pre, 1000)  # more than there are entries
    for shape in ((1, 8), (4, 1), (1, 1)):
        one = matrix("random", *shape, 5).abs()
        assert_exact(BatchTopK(cut=cut)(one, 1), one, 1)
    every = topk_rows(pre, 8)
    assert torch.equal(flat_of(every, 8), (pre.flatten() > 0).nonzero().squeeze(1))


@pytest.mark.parametrize("cut", [0.0, 0.5])
def test_nan_neither_hangs_nor_is_kept(cut):
    pre = matrix("random", 4, 8, 0)
    pre[1, 3] = float("nan")
    for kept in (BatchTopK(cut=cut)(pre, 6), topk_rows(pre, 3)):
        assert torch.isfinite(kept.acts_n).all()


def test_the_kept_come_in_row_major_order():
    pre = matrix("random", 16, 32, 1)
    for kept in (BatchTopK()(pre, 64), topk_rows(pre, 4), Kept.from_dense(pre)):
        flat = flat_of(kept, 32)
        assert (flat.diff() > 0).all()


def test_equals_at_the_cut_go_to_the_lowest_index():
    assert largest(torch.tensor([1.0, 2, 1, 1, 3]), 3).tolist() == [True, True, False, False, True]
    values, latents = topk_lowest_index(torch.tensor([[1.0, 2, 1, 1, 3]]), 3)
    assert latents.tolist() == [[0, 1, 4]] and values.tolist() == [[1, 2, 3]]


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from([*KINDS, "few"]),
    rows=st.integers(1, 9),
    d_sae=st.integers(1, 60),
    k=st.integers(1, 12),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_of_tied_entries_the_lowest_are_taken(kind, rows, d_sae, k, dtype, seed):
    """Also beside what is not finite, and where more are tied than a row keeps."""
    pre = matrix(kind, rows, d_sae, seed)
    pre = (pre.round() if kind == "few" else pre).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for odd in (torch.nan, torch.inf, -torch.inf, -0.0):
        pre[torch.rand(pre.shape, generator=generator) < 0.03] = odd
    k = min(k, d_sae)
    values, latents = topk_lowest_index(pre, k)
    order = pre.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
    assert torch.equal(values.nan_to_num(9e9), pre.gather(1, latents).nan_to_num(9e9))
    for row, mine, wanted in zip(pre, latents, order, strict=True):
        counts = row > 0  # of what does not, any may be taken
        assert mine.unique().numel() == k and (mine.diff() > 0).all()
        assert torch.equal(mine[counts[mine]], wanted[counts[wanted]])


class Sorted(TorchFunctionMode):
    """Notes the width of all that is sorted."""

    def __init__(self):
        super().__init__()
        self.widths = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("sort", "argsort"):
            self.widths.append(args[0].shape[-1])
        return func(*args, **(kwargs or {}))


def test_rows_that_are_tied_are_not_ordered_whole():
    """In bfloat16 most are: ordering them took sixteen times as long as their top-k."""
    x, W = torch.randn(64, 32), torch.randn(2048, 32)
    exact, rounded = x @ W.T, (x.bfloat16() @ W.bfloat16().T)
    cut = rounded.topk(19).values
    assert (cut[:, 17] == cut[:, 18]).any()
    with Sorted() as seen:
        kept = topk_rows(rounded, 8, lambda flat_n: exact.flatten()[flat_n])
    assert max(seen.widths) <= 18
    wanted = topk_rows(exact, 8)
    assert torch.equal(flat_of(kept, 2048), flat_of(wanted, 2048))
    assert torch.equal(kept.acts_n, wanted.acts_n)


def test_rows_with_fewer_positives_than_may_be_kept_are_not_tied(monkeypatch):
    """Their zeros are equal, and it is all one which are kept."""
    acts = (torch.randn(64, 100) - 1).relu()
    monkeypatch.setattr(selection, "_lowest_at_cut", lambda *_: pytest.fail("called tied"))
    assert torch.equal(keep_largest(acts, 60), acts)


def test_rounded_values_near_the_filter_do_not_change_the_result():
    """Just enough candidates pass the filter by their rounded values: it must not be trusted."""
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(512, 64, generator=generator), torch.randn(2048, 64, generator=generator)
    exact_BF, rounded_BF = x @ W.T, (x.bfloat16() @ W.bfloat16().T)
    budget = 16 * 512
    wanted = BatchTopK()(exact_BF, budget)
    ordered = rounded_BF.float().flatten().sort(descending=True).values
    for share in (1.0, 1.0011, 1.01, 1.1):
        filter_at = float(ordered[int(share * budget)])
        select = BatchTopK(cut=filter_at / 0.95, margin=0.95)
        found = select(rounded_BF, budget, lambda flat_n: exact_BF.flatten()[flat_n])
        assert torch.equal(found.rows_n, wanted.rows_n)
        assert torch.equal(found.latents_n, wanted.latents_n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@given(
    size=st.integers(0, 400), bound=st.sampled_from([0.0, 0.5, 1.0, 2.5, -1.0]), seed=st.integers()
)
@settings(max_examples=60, deadline=None)
def test_the_few_above_a_bound_are_those_that_torch_finds(dtype, size, bound, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    values = (torch.randn(size, generator=generator) * 2).round(decimals=1).to(dtype)
    for odd, share in ((torch.nan, 0.05), (torch.inf, 0.05), (-torch.inf, 0.05), (-0.0, 0.1)):
        values[torch.rand(size, generator=generator) < share] = odd
    bound = float(torch.tensor(bound).to(dtype))
    wanted = (values > bound).nonzero().squeeze(1)
    assert torch.equal(few_above(values.requires_grad_(), bound), wanted)
    values = torch.cat([values, values])[: size // 8 * 8]  # of whole words
    wanted = (values > bound).nonzero().squeeze(1)
    assert torch.equal(few_above(values, bound), wanted)
