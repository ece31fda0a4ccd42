"""Cutting transcoders, sorted by depth, into contiguous parts of which the largest is smallest.

A part costs the training of all its transcoders, and one forward to the deepest of them, its last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise


def split(train: Sequence[int], forward: Sequence[int], parts: int) -> list[range]:
    """The members of each part, none empty; train and forward are FLOPs per token of each
    transcoder, and forward never falls.

    Exact: no cut has a smaller largest part; of those that equal it, this one has the least forward
    work in all. A part without its first or its last member costs less, so whatever keeps within a
    bound does so filled up from the deep end; the smallest such bound is found by bisection."""
    assert 1 <= parts <= len(train) == len(forward)
    assert all(before <= after for before, after in pairwise(forward)), "not sorted by depth"
    total = [0, *accumulate(train)]
    low = max(own + deep for own, deep in zip(train, forward, strict=True))
    high = total[-1] + forward[-1]
    while low < high:
        bound = (low + high) // 2
        if _starts(total, forward, parts, bound)[0] == 0:
            high = bound
        else:
            low = bound + 1
    starts = _starts(total, forward, parts, low)
    return [range(start, end) for start, end in pairwise([*starts, len(train)])]


def _starts(total: Sequence[int], forward: Sequence[int], parts: int, bound: int) -> list[int]:
    """Where each part starts if, from the last to the first, it takes what the bound allows and
    leaves one for each before it. The first starts at 0 if the bound can be kept."""
    starts: list[int] = []
    end = len(forward)
    for parts_before in reversed(range(parts)):
        first_that_fits = bisect_left(total, total[end] + forward[end - 1] - bound)
        end = max(first_that_fits, parts_before)
        starts.append(end)
    return starts[::-1]
