"""Memory that ran out inside a cell, as one message that names what to lower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mtc_core.errors import ConfigError

_ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ ?\w+)")
_CPU = ("can't allocate memory", "not enough memory")  # of torch's allocator for the host


@contextmanager
def memory_errors(cell: str, device: str) -> Iterator[None]:
    """Turn what torch and Python raise for want of memory into ConfigError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(_message(cell, device, str(error))) from None
    except MemoryError as error:
        raise ConfigError(_message(cell, "this machine", str(error))) from None
    except RuntimeError as error:
        if not any(mark in str(error) for mark in _CPU):
            raise
        raise ConfigError(_message(cell, "this machine", str(error))) from None


def _message(cell: str, where: str, text: str) -> str:
    asked = _ASKED.search(text) or re.search(r"you tried to allocate (\d+ bytes)", text)
    wanted = f" (asked for {asked[1]} more)" if asked else ""
    return (
        f"{cell}: out of memory on {where}{wanted}; lower model.forward_contexts, "
        "train.block_batches or train.batch_tokens, give fewer transcoders to a device "
        "(resources.cells), or end what else uses it"
    )
