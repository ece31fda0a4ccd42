"""Cutting transcoders, sorted by depth, into contiguous parts of which the largest is smallest.

A part costs the training of all its transcoders, and one forward to the deepest of them, its last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


def split(
    train: Sequence[int],
    forward: Sequence[int],
    parts: int,
    sizes: Sequence[int] = (),
    room: int | None = None,
) -> list[range]:
    """The members of each part, none empty; train and forward are FLOPs per token of each
    transcoder, and forward never falls.

    room: no part is to hold more bytes than this, by the `sizes` of its members; where no cut keeps
    it, it is ignored.

    Exact: no cut has a smaller largest part; of those that equal it, this one has the least forward
    work in all. A part without its first or its last member costs less, so whatever keeps within a
    bound does so filled up from the deep end; the smallest such bound is found by bisection."""
    assert 1 <= parts <= len(train) == len(forward)
    assert all(before <= after for before, after in pairwise(forward)), "not sorted by depth"
    cut = _Cut([0, *accumulate(train)], forward, parts)
    low = max(own + deep for own, deep in zip(train, forward, strict=True))
    high = cut.total[-1] + forward[-1]
    if room is not None and max(sizes) <= room:
        full = _Cut(cut.total, forward, parts, [0, *accumulate(sizes)], room)
        cut = full if full.starts(high)[0] == 0 else cut
    while low < high:
        bound = (low + high) // 2
        if cut.starts(bound)[0] == 0:
            high = bound
        else:
            low = bound + 1
    return [range(start, end) for start, end in pairwise([*cut.starts(low), len(train)])]


def fewest_parts(sizes: Sequence[int], room: int) -> int | None:
    """The smallest number of parts none of which holds more bytes than `room`; None where one
    member alone does."""
    if max(sizes) > room:
        return None
    parts, left = 0, 0
    for size in sizes:
        if size > left:
            parts, left = parts + 1, room
        left -= size
    return parts


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is to be cut, as sums from the first member on, and into how many parts."""

    total: Sequence[int]
    forward: Sequence[int]
    parts: int
    bytes: Sequence[int] = ()
    room: int | None = None

    def starts(self, bound: int) -> list[int]:
        """Where each part starts if, from the last to the first, it takes what bound and room allow
        and leaves one for each before it. The first starts at 0 if both can be kept."""
        starts: list[int] = []
        end = len(self.forward)
        for parts_before in reversed(range(self.parts)):
            first = bisect_left(self.total, self.total[end] + self.forward[end - 1] - bound)
            if self.room is not None:
                first = max(first, bisect_left(self.bytes, self.bytes[end] - self.room))
            end = max(first, parts_before)
            starts.append(end)
        return starts[::-1]
