"""Selection that never waits, against selection.py: equal to the bit, whatever the filter."""

import pytest
import torch

from mtc_core.kernels import triton_selection
from mtc_core.kernels.triton_selection import Matrix, keep_of_rows, select_batch, select_rows
from mtc_core.selection import BatchTopK, keep_largest, topk_rows
from tests.core.steps import fresh_seed


@pytest.fixture(autouse=True)
def narrow_blocks(monkeypatch):
    """So that rows of some dozen entries have several of them."""
    monkeypatch.setattr(triton_selection, "BLOCKS", (64, 32))


def drawn(draw, rows, width, kind):
    values, bias = (torch.randn(*size, generator=draw) for size in ((rows, width), (width,)))
    if kind == "ties":
        values, bias = ((4 * part).round() / 4 for part in (values, bias))
    if kind == "few":
        values -= 3
    if kind == "empty rows":
        values[::2] = -float("inf")
    if kind == "odd":
        values[0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    return values, bias


def without_nan(values):
    """What is no number is never kept; torch's topk would take it first."""
    return values.where(~values.isnan(), -1.0)


def assert_same(kept, wanted, rows, width):
    n = int(kept.number)
    assert n == wanted.acts_n.numel()
    assert torch.equal(kept.rows_n[:n], wanted.rows_n)
    assert torch.equal(kept.latents_n[:n], wanted.latents_n)
    assert torch.equal(kept.acts_n[:n], wanted.acts_n)
    # What is not filled belongs to nobody, and ascends.
    assert (kept.rows_n[n:] == rows).all() and (kept.latents_n[n:] == width).all()
    assert not kept.acts_n[n:].any()


@pytest.mark.parametrize(
    "kind,rows,width",
    [
        ("plain", 1, 1),
        ("plain", 7, 33),
        ("ties", 7, 33),
        ("ties", 9, 130),
        ("few", 7, 33),
        ("empty rows", 7, 33),
        ("odd", 7, 33),
    ],
)
def test_the_largest_of_a_batch(kind, rows, width):
    draw = torch.Generator().manual_seed(fresh_seed())
    values, bias = drawn(draw, rows, width, kind)
    k = min(width, 5)
    full = without_nan(values + bias)
    for bound in (0.0, 0.3, 1.2, 9.0):  # no filter yet, too low, about right, too high
        budget = int(torch.randint(1, k * rows + 1, (), generator=draw))
        kept, cut, found = select_batch(
            Matrix(values, bias), torch.tensor([budget], dtype=torch.int32), k * rows,
            torch.tensor([bound]),
        )  # fmt: skip
        wanted = BatchTopK()(full, budget)
        assert_same(kept, wanted, rows, width)
        assert int(found) == int((full > bound).sum())
        assert bool(cut.few) == (wanted.acts_n.numel() < budget)
        if not cut.few:
            assert float(cut.value) == float(wanted.acts_n.min())


@pytest.mark.parametrize("kind", ["plain", "ties", "few", "odd"])
def test_the_largest_of_each_row(kind):
    draw = torch.Generator().manual_seed(fresh_seed())
    values, bias = drawn(draw, 5, 70, kind)
    for k in (1, 6):
        wanted = topk_rows(without_nan(values + bias), k)
        assert_same(select_rows(Matrix(values.clone(), bias), k), wanted, 5, 70)


def test_rows_that_are_chosen_keep_their_largest_and_others_stay_as_they_are():
    draw = torch.Generator().manual_seed(fresh_seed())
    values = (2 * torch.randn(6, 70, generator=draw)).round().relu() / 2
    chosen = torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.int32)
    for k in (0, 3, 70):
        found = values.clone()
        keep_of_rows(Matrix(found), chosen, k, 0.0)
        wanted = keep_largest(values, k) if k else torch.zeros_like(values)
        assert torch.equal(found, torch.where(chosen[:, None] > 0, wanted, values))


def test_blocks_leave_little_of_a_row_over(monkeypatch):
    monkeypatch.undo()
    sizes = {width: Matrix(torch.empty(1, width)).block for width in (12288, 36864, 4608, 100)}
    assert sizes == {12288: 4096, 36864: 4096, 4608: 512, 100: 512}
