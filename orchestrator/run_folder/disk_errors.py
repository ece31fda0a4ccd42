"""What the file system refuses in a run folder, as the one message that a user can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from mtc_core.errors import ConfigError


@contextmanager
def disk_errors(path: Path, verb: Literal["read", "written"]) -> Iterator[None]:
    """Turn an OSError inside into a ConfigError that names the path and the way out."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be {verb} ({error.strerror or error}); choose another --root"
        ) from None


def out_of_space(error: Exception) -> bool:
    """Whether something could not be written because its disk, or the user's share, is full."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"(os error {number})" in str(error) for number in _FULL)  # safetensors' own


_FULL = (errno.ENOSPC, errno.EDQUOT)
