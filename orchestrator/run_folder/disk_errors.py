"""What the file system refuses in a run folder, as the one message that a user can act on."""

from __future__ import annotations

import errno
import os
import re
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
        remedy = "free space there, or choose" if out_of_space(error) else "choose"
        raise ConfigError(
            f"{path}: cannot be {verb} ({error.strerror or error}); {remedy} another --root"
        ) from None


def out_of_space(error: Exception) -> bool:
    """Whether something could not be written because its disk, or the user's share, is full."""
    return _number(error) in _FULL


def unwritable(error: Exception) -> str:
    """Why a disk takes nothing any more, full ones apart; empty for all other errors."""
    number = _number(error)
    return os.strerror(number) if number in _SICK else ""


def elsewhere(error: Exception, folder: Path) -> str:
    """The file that an error of the disk names, if it lies outside the folder; else nothing."""
    name = getattr(error, "filename", None)
    if not isinstance(name, str) or not os.path.isabs(name):
        return ""  # relative ones are of a folder that is being deleted: ours
    return "" if Path(name).is_relative_to(folder) else name


def _number(error: Exception) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))  # safetensors' own
    return int(found[1]) if found else 0


_FULL = (errno.ENOSPC, errno.EDQUOT)
_SICK = (errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE)
