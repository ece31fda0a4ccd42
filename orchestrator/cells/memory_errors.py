"""Memory that ran out inside a cell, as one message that names what to lower."""

from __future__ import annotations

import errno
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mtc_core.errors import ConfigError

_ASKED = re.compile(
    r"tried to allocate (\d+) bytes|(?:[Tt]ried|[Uu]nable) to allocate ([\d.]+ \w+)"
)
# Of a RuntimeError: torch's allocator for the host, files that torch maps; and a GPU that is too
# full for CUDA and its libraries to begin.
_HOST = re.compile(r"can't allocate memory|not enough memory|Cannot allocate memory|bad_alloc")
_GPU = re.compile(r"CUDA error: out of memory|CU\w+_STATUS_ALLOC_FAILED")
_ADVICE = (
    "give fewer transcoders to a device (resources.cells), or end what else uses it; in a new run, "
    "lower model.forward_contexts, train.block_batches or train.batch_tokens"
)


@contextmanager
def memory_errors(cell: str, device: str, advice: str = _ADVICE) -> Iterator[None]:
    """Turn what torch, numpy and Python raise for want of memory into ConfigError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError, OSError) as error:
        if where := _where(error, device):
            raise ConfigError(_message(cell, where, str(error), advice)) from None
        raise


def _where(error: Exception, device: str) -> str | None:
    """Whose memory ran out; None for any other error."""
    if isinstance(error, torch.OutOfMemoryError):
        return device
    if isinstance(error, MemoryError):
        return platform.node()
    if isinstance(error, OSError):
        return platform.node() if error.errno == errno.ENOMEM else None
    if _GPU.search(str(error)):
        return device
    return platform.node() if _HOST.search(str(error)) else None


def _message(cell: str, where: str, text: str, advice: str) -> str:
    asked = _ASKED.search(text)
    amount = asked and (f"{int(asked[1]) / 1e9:.1f} GB" if asked[1] else asked[2])
    wanted = f" (asked for {amount} more)" if amount else ""
    return f"{cell}: out of memory on {where}{wanted}; {advice}"
