"""Loops that release the interpreter, on as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import torch

PARTS = 8  # of a loop for each thread: one that is put off leaves its share to the others


def spread(function: Callable[..., Any], cuts: Sequence[int], *args: Any) -> list[Any]:
    """function(first, last, *args) for each range between two cuts; results in their order."""
    ranges = list(enumerate(pairwise(cuts)))
    results: list[Any] = [None] * len(ranges)
    waiting = iter(ranges)  # shared: next() of a list's iterator is atomic

    def work() -> None:
        for i, (first, last) in waiting:
            results[i] = function(first, last, *args)

    helpers = min(torch.get_num_threads(), len(ranges)) - 1
    futures = [_pool(helpers).submit(work) for _ in range(helpers)]
    work()
    for future in futures:
        future.result()
    return results


def even_cuts(size: int) -> list[int]:
    """Cuts of `size` equal items."""
    parts = max(1, min(size, PARTS * torch.get_num_threads()))
    return [size * i // parts for i in range(parts + 1)]


@cache
def _pool(helpers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(helpers, thread_name_prefix="mtc-kernel")
