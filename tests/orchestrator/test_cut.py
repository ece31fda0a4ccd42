"""The cut into parts against brute force over all cuts."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from orchestrator.planning.cut import cut, fewest_parts


def flops_of(part: range, train: list[int], forward: list[int]) -> int:
    return sum(train[i] for i in part) + forward[part[-1]]


def all_cuts(n: int, parts: int) -> list[list[range]]:
    return [
        [range(a, b) for a, b in pairwise((0, *inner, n))]
        for inner in combinations(range(1, n), parts - 1)
    ]


@pytest.mark.parametrize("seed", range(60))
def test_no_cut_has_a_smaller_largest_part_or_at_that_less_forward_work(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(1, 9)
    train = [rng.choice([1, 5, 20, 21, 100]) for _ in range(n)]
    forward = sorted(rng.randint(0, rng.choice([3, 300])) for _ in range(n))

    def badness(parts: list[range]) -> tuple[int, int]:
        forwards = sum(forward[part[-1]] for part in parts)
        return max(flops_of(part, train, forward) for part in parts), forwards

    for parts in range(1, n + 1):
        found = cut(train, forward, parts)
        assert [i for part in found for i in part] == list(range(n))
        assert len(found) == parts and all(found)
        assert badness(found) == min(badness(other) for other in all_cuts(n, parts))


def test_a_deep_part_pays_a_longer_forward_and_gets_fewer() -> None:
    sizes = [len(part) for part in cut([10] * 30, [3 * (1 + i) for i in range(30)], 4)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] + 5


def test_without_a_forward_the_parts_are_equal() -> None:
    assert [len(part) for part in cut([7] * 12, [0] * 12, 4)] == [3, 3, 3, 3]


def test_what_is_not_sorted_by_depth_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="not sorted by depth"):
        cut([1, 1], [2, 1], 2)


@pytest.mark.parametrize("seed", range(60))
def test_with_little_room_the_best_cut_that_keeps_it_is_taken(seed: int) -> None:
    rng = random.Random(1000 + seed)
    n = rng.randint(1, 9)
    train = [rng.choice([1, 5, 20, 100]) for _ in range(n)]
    forward = sorted(rng.randint(0, 300) for _ in range(n))
    sizes = [rng.randint(1, 50) for _ in range(n)]
    room = rng.randint(1, 120)

    def largest(parts: list[range]) -> int:
        return max(flops_of(part, train, forward) for part in parts)

    def keeps_it(parts: list[range]) -> bool:
        return all(sum(sizes[i] for i in part) <= room for part in parts)

    fitting = {}
    for parts in range(1, n + 1):
        found = cut(train, forward, parts, sizes, [room] * parts)
        assert [i for part in found for i in part] == list(range(n)) and all(found)
        fitting[parts] = [other for other in all_cuts(n, parts) if keeps_it(other)]
        if fitting[parts]:
            assert keeps_it(found) and largest(found) == min(map(largest, fitting[parts]))
        else:
            assert found == cut(train, forward, parts)
    assert fewest_parts(sizes, room) == next((p for p in fitting if fitting[p]), None)


@pytest.mark.parametrize("seed", range(60))
def test_devices_that_differ_in_memory_and_in_other_work_get_what_suits_them(seed: int) -> None:
    rng = random.Random(2000 + seed)
    n = rng.randint(1, 8)
    train = [rng.choice([1, 5, 20, 100]) for _ in range(n)]
    sizes = [rng.randint(1, 50) for _ in range(n)]
    for parts in range(1, n + 1):
        rooms = [rng.choice([None, rng.randint(10, 150)]) for _ in range(parts)]
        loads = [rng.choice([0, 40, 200]) for _ in range(parts)]

        def largest(found: list[range], loads: list[int] = loads) -> int:
            return max(
                sum(train[i] for i in p) + load for p, load in zip(found, loads, strict=True)
            )

        def keeps_them(found: list[range], rooms: list[int | None] = rooms) -> bool:
            held = (sum(sizes[i] for i in part) for part in found)
            return all(r is None or size <= r for size, r in zip(held, rooms, strict=True))

        found = cut(train, [0] * n, parts, sizes, rooms, loads)
        assert [i for part in found for i in part] == list(range(n)) and all(found)
        fitting = [other for other in all_cuts(n, parts) if keeps_them(other)]
        assert keeps_them(found) or not fitting
        assert largest(found) == min(map(largest, fitting or all_cuts(n, parts)))
