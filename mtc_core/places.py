"""Paths as users write them, looked at without surprises: a name too long for the disk, a home that
nobody has, a folder that may not be entered."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"(\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)


def place(written: str) -> Path:
    """The path, with `~` expanded where there is such a home."""
    try:
        return Path(written).expanduser()
    except RuntimeError:
        return Path(written)


def is_there(path: Path) -> bool:
    """Whether something is at a path, as far as one may look."""
    try:
        path.stat()
    except PermissionError:
        return True  # reading it tells more
    except (OSError, ValueError):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether a folder is at a path, as far as one may look."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def may_be_hub_id(name: str) -> bool:
    """Whether the Hugging Face Hub could have a repository of this name, by its own rules."""
    odd = "--" in name or ".." in name or name.endswith(".git")
    return bool(_HUB_ID.fullmatch(name)) and not odd
