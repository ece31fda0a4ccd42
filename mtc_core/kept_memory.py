"""glibc keeps the memory of freed tensors for the next step, instead of handing it back.

A freed tensor at the end of the heap goes back to the kernel, and the next one faults in its pages
anew, zeroed: 3,000 to 60,000 times a second in a trainer under Ray (benchmarks/LOG.md).
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST = 32 * 2**20  # what glibc takes on 64 bits; larger tensors are mapped and unmapped singly
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """For this process, unless its user has tuned malloc; nothing where malloc is not glibc's."""
    if _tuned():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _NEVER)


def hand_freed_memory_back() -> None:
    """All that is free now, of every thread: each keeps memory of its own, and those that write
    checkpoints would keep 70 MB each for nobody; unpacking a model of 135M weights, 400 MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None and not _tuned():
        trim(0)


def _tuned() -> bool:
    return any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
