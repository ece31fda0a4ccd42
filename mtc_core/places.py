"""Paths as users write them, looked at without surprises: a name too long for the disk, a home that
nobody has, a folder that may not be entered."""

from __future__ import annotations

from pathlib import Path


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
