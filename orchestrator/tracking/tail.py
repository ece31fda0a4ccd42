"""Whole lines of a file that another process appends to, cuts back, and writes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


class Tail:
    """Reads the JSON lines of a file once each, from a byte offset on.

    A file that is shorter than what was read has been cut back to a checkpoint, and grows to the
    same bytes again: those are not read twice."""

    def __init__(self, path: Path, offset: int) -> None:
        self.path, self.offset = path, offset
        self.damaged = 0

    def read(self) -> list[dict[str, Any]]:
        """The next whole lines, of at most CHUNK_BYTES; none while there are none. A line that is
        no JSON object, as a power cut may leave it, is counted in `damaged` and left out."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        lines = [_object(line) for line in whole.splitlines()]
        self.damaged += lines.count(None)
        return [line for line in lines if line is not None]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
