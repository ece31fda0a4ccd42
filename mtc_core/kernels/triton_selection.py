"""Exact selection on a GPU that never waits for it: selection.py is its slow twin.

    count what is above the filter -> (where that missed: search all) -> write the candidates ->
    search them -> write what is kept

The search goes by eight bits of a float at a time. What it needs not do, its kernels leave at once.

B rows · F latents · N = B F entries · n slots
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtc_core.kernels import triton_search as search
from mtc_core.kernels.fixed_kept import FixedKept

BLOCKS = (4096, 2048, 1024, 512)  # entries that a program looks at: the largest that fits a row
ROOM = 2  # candidates, as multiples of the largest budget


@dataclass(frozen=True, slots=True)
class Matrix:
    """Contiguous float32 values [B, F], to which `bias_F` is still to be added."""

    values: Tensor
    bias_F: Tensor | None = None

    @property
    def blocks(self) -> tuple[int, int]:
        rows, width = self.values.shape
        return rows, -(-width // self.block)

    @property
    def block(self) -> int:
        width = self.values.shape[1]
        return min(BLOCKS, key=lambda size: -(-width // size) * size)  # of equals the first

    @property
    def operands(self) -> tuple[Tensor, Tensor]:
        return self.values, self.values if self.bias_F is None else self.bias_F

    @property
    def options(self) -> dict[str, int | bool]:
        warps = 8 if self.block > 2048 else 4  # with fewer the widest would run out of registers
        return {"BLOCK": self.block, "BIASED": self.bias_F is not None, "num_warps": warps}


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the largest end: all above `value`, and the first `ties` that equal it. Each of one
    entry, on the device; `few`: there are no more positive values than were wanted."""

    value: Tensor  # float32
    ties: Tensor  # int32
    few: Tensor  # bool


@dataclass(frozen=True, slots=True)
class Counts:
    above: Tensor  # of each block, int32
    at: Tensor

    @classmethod
    def of(cls, matrix: Matrix) -> Counts:
        rows, parts = matrix.blocks
        make = matrix.values.new_zeros
        return cls(make(rows * parts, dtype=torch.int32), make(rows * parts, dtype=torch.int32))

    def take(self, matrix: Matrix, cut: Tensor, wanted: Tensor) -> None:
        """Count anew, unless `wanted` is 0."""
        width = matrix.values.shape[1]
        search.count[matrix.blocks](
            *matrix.operands, cut, wanted, self.above, self.at, width, **matrix.options
        )


def select_batch(
    matrix: Matrix, budget: Tensor, capacity: int, bound: Tensor
) -> tuple[FixedKept, Cut, Tensor]:
    """The `budget` (int32 of one entry, 1 to capacity) largest positive entries; equals go to the
    lowest place. bound: where to look first, which decides how long it takes and nothing else.
    Also where they end, and how many were above the bound."""
    room = min(ROOM * capacity, matrix.values.numel())
    counts, always = Counts.of(matrix), torch.ones_like(budget)
    counts.take(matrix, bound, always)
    found = counts.above.sum(dtype=torch.int32).view(1)
    missed = (bound <= 0) | (found < budget) | (found > room)
    slow = find_cut(matrix, budget, missed)
    counts.take(matrix, slow.value, missed.int())
    bound = torch.where(missed, slow.value, bound)
    ties = slow.ties.masked_fill(~missed, 0)
    places, values = written(matrix, counts, bound, ties, room)

    candidates = Matrix(values[None, :room])
    cut = find_cut(candidates, budget, always.bool())
    counts = Counts.of(candidates)
    counts.take(candidates, cut.value, always)
    chosen, acts = written(candidates, counts, cut.value, cut.ties, capacity)
    kept = _kept(matrix, places[chosen[:capacity]], acts[:capacity])
    return kept, cut, found


def select_rows(matrix: Matrix, k: int) -> FixedKept:
    """The k largest positive entries of each row; the matrix loses the others."""
    rows = matrix.values.shape[0]
    every = torch.ones(rows, dtype=torch.int32, device=matrix.values.device)
    keep_of_rows(matrix, every, k, -float("inf"))
    zero = torch.zeros(1, dtype=torch.int32, device=matrix.values.device)
    counts = Counts.of(matrix)
    counts.take(matrix, zero.float(), zero + 1)
    places, values = written(matrix, counts, zero.float(), zero, rows * k)
    return _kept(matrix, places[: rows * k], values[: rows * k])


def keep_of_rows(matrix: Matrix, chosen_B: Tensor, k: int, fill: float) -> None:
    """Of rows that are chosen leave the k largest positive entries; the rest becomes `fill`."""
    rows, width = matrix.values.shape
    search.keep_of_rows[(rows,)](*matrix.operands, chosen_B, width, fill, K=k, **matrix.options)


def find_cut(matrix: Matrix, wanted: Tensor, needed: Tensor) -> Cut:
    """Where the `wanted` largest positive values end; 0 where they are fewer, or not `needed`."""
    zero = torch.zeros_like(wanted)
    state = torch.cat([zero, wanted, needed.int(), zero])  # triton_search.pick says what
    bins = state.new_zeros(int(search.BINS.value))
    width = matrix.values.shape[1]
    for shift in (24, 16, 8, 0):
        search.histogram[matrix.blocks](
            *matrix.operands, state, bins, width, SHIFT=shift, **matrix.options
        )
        search.pick[(1,)](state, bins)
    few = (state[3:] > 0) | ~needed
    return Cut(state[:1].view(torch.float32), state[1:2].masked_fill(few, 0), few)


def written(
    matrix: Matrix, counts: Counts, cut: Tensor, ties: Tensor, room: int
) -> tuple[Tensor, Tensor]:
    """Flat places and values of what a cut leaves, each with `room` slots and one that stays empty:
    places of empty slots are the number of entries, their values 0."""
    entries, width = matrix.values.numel(), matrix.values.shape[1]
    places = torch.full((room + 1,), entries, dtype=torch.int64, device=cut.device)
    values = torch.zeros(room + 1, dtype=torch.float32, device=cut.device)
    before = [torch.cumsum(part, 0, dtype=torch.int32) - part for part in (counts.above, counts.at)]
    search.write[matrix.blocks](
        *matrix.operands, cut, ties, *before, places, values, width, room, **matrix.options
    )
    return places, values


def _kept(matrix: Matrix, places_n: Tensor, acts_n: Tensor) -> FixedKept:
    rows, width = matrix.values.shape
    filled = (acts_n > 0).sum()
    return FixedKept.from_places(places_n, acts_n, filled, width, rows)
