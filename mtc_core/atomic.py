"""Files and folders that are either whole or absent, whenever the process dies.

Written under a temporary name, synced, renamed, and the parent folder synced: only then does the
new name survive a power cut. Loads without torch.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it as it was."""
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def write_json_atomic(path: Path, value: Any) -> None:
    """Replace `path` by the JSON of `value`; floats must be finite."""
    write_bytes_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json_atomic` writes. Raises ValueError where a float is not finite."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path`, with all its files synced, on a clean exit.

    A folder that already stands at `path` is replaced; what an earlier process left half-written
    beside it is removed.
    """
    assert path.name, "a folder needs a name: resolve() gives `.` one"
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    temporary = _temporary(path)
    temporary.mkdir()
    yield temporary
    readers = temporary.stat().st_mode & 0o666  # as the umask has it; safetensors asks nobody
    for entry in sorted(temporary.rglob("*")):
        if not entry.is_dir():
            entry.chmod(readers)
        sync(entry)
    sync(temporary)
    if path.exists():
        doomed = _doomed(path)
        path.rename(doomed)
        temporary.rename(path)
        shutil.rmtree(doomed)
    else:
        temporary.rename(path)
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder; a process killed meanwhile leaves nothing half under its name."""
    doomed = _doomed(path)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _temporary(path: Path) -> Path:
    """Beside it. Processes of several machines, or containers, may have one pid."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")


def _doomed(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.old.tmp")


def remove_leftovers(parent: Path, name: str = "") -> None:
    """Delete what a killed process left half-written in `parent` (for one name, or for any)."""
    for leftover in parent.glob(f".{name}.*.tmp" if name else ".*.tmp"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
