"""Cutting transcoders, sorted by depth, into contiguous parts of which the largest is smallest.

A part costs the training of all its transcoders, and one forward to the deepest of them, its last.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


def cut(
    train: Sequence[int],
    forward: Sequence[int],
    parts: int,
    sizes: Sequence[int] = (),
    rooms: Sequence[int | None] = (),
    loads: Sequence[int] = (),
) -> list[range]:
    """The members of each part, none empty; train and forward are FLOPs per token of each
    transcoder, and forward never falls.

    rooms: no part is to hold more bytes than its own of these, by the `sizes` of its members; where
    no cut keeps them, they are ignored. loads: FLOPs per token that the device of each part has to
    do beside it.

    Exact: no cut has a smaller largest part; of those that equal it, this one fills parts up from
    the deep end, which without loads and rooms is the least forward work in all. The smallest
    bound within which there is a cut is found by bisection."""
    assert 1 <= parts <= len(train) == len(forward)
    assert all(before <= after for before, after in pairwise(forward)), "not sorted by depth"
    loads = loads or [0] * parts
    low = max(own + deep for own, deep in zip(train, forward, strict=True)) + min(loads)
    high = sum(train) + forward[-1] + max(loads)
    places = [0, *accumulate(train)], [0, *forward]
    cut = _Cut(*places, loads)
    if any(room is not None for room in rooms):
        full = _Cut(*places, loads, [0, *accumulate(sizes)], rooms)
        cut = full if full.starts(high) else cut
    while low < high:
        bound = (low + high) // 2
        if cut.starts(bound):
            high = bound
        else:
            low = bound + 1
    starts = cut.starts(low)
    assert starts is not None, "the highest bound keeps everything in one part"
    return [range(start, end) for start, end in pairwise([*starts, len(train)])]


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
    """What is to be cut, and into what parts: FLOPs and bytes of all members before each place,
    and the forward to the member before it."""

    total: Sequence[int]
    deep: Sequence[int]
    loads: Sequence[int]
    bytes: Sequence[int] = ()
    rooms: Sequence[int | None] = ()

    def starts(self, bound: int) -> list[int] | None:
        """Where each part starts, each as early as it can from the last to the first. None where
        no cut keeps the bound and the rooms."""
        alike = len(set(self.loads)) == 1 and len(set(self.rooms)) <= 1
        return self._of_equals(bound) if alike else self._of_all(bound)

    def _of_equals(self, bound: int) -> list[int] | None:
        """The same where all parts are alike: one that takes all it can leaves the least."""
        starts: list[int] = []
        end = len(self.total) - 1
        for part in reversed(range(len(self.loads))):
            first = max(self._first(part, bound, end), part)
            if first >= end:
                return None
            starts.append(first)
            end = first
        return starts[::-1] if end == 0 else None

    def _of_all(self, bound: int) -> list[int] | None:
        """The same in general, by the places up to which the first few parts can cover all: a part
        with much else to do may only be able to take one that its neighbour could take, too."""
        count = len(self.total)
        before: list[list[int]] = [[0]]
        firsts = self._firsts(bound)
        for first in firsts:
            covered = set(before[-1])
            counts = [0, *accumulate(place in covered for place in range(count))]
            before.append([end for end in range(1, count) if counts[end] > counts[first[end]]])
        if count - 1 not in before[-1]:
            return None
        starts, end = [], count - 1
        for part in reversed(range(len(self.loads))):
            places = before[part]
            end = places[bisect_left(places, firsts[part][end])]
            starts.append(end)
        return starts[::-1]

    def _firsts(self, bound: int) -> list[list[int]]:
        """`_first` of each part for each end, at most that end; parts that are alike share it."""
        kinds: dict[tuple[int, int | None], list[int]] = {}
        found = []
        for part, load in enumerate(self.loads):
            kind = (load, self.rooms[part] if self.rooms else None)
            if kind not in kinds:
                ends = range(len(self.total))
                kinds[kind] = [min(self._first(part, bound, end), end) for end in ends]
            found.append(kinds[kind])
        return found

    def _first(self, part: int, bound: int, end: int) -> int:
        """Where a part that ends at a place may start at the earliest."""
        first = bisect_left(self.total, self.total[end] + self.deep[end] + self.loads[part] - bound)
        room = self.rooms[part] if self.rooms else None
        if room is not None:
            first = max(first, bisect_left(self.bytes, self.bytes[end] - room))
        return first
