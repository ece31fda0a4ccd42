"""A transcoder's curve, read from metrics.jsonl: what a page draws of it, however long it is.

A run of a billion tokens logs 12,000 lines a transcoder, and a page draws 300 points of each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.shapes import NUMBER, Maybe, fault

Lines = list[dict[str, Any]]
LINES = 1_000  # at most, and one more
_LOGGED = {"step": NUMBER, "tokens": NUMBER, "fvu_by_prefix": Maybe(list, absent=True)}


def read_curve(path: Path, complaints: list[str]) -> Lines:
    """All whole lines of a short file; of a long one every second, every fourth, …, and the last.
    Each is read, and damaged ones are told of. The last line may be half written."""
    if not path.exists():
        return []
    kept: Lines = []
    last: dict[str, Any] = {}
    whole, stride = 0, 1
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not (parsed := _parsed(line)):
                if line.endswith(b"\n"):
                    complaints.append(f"{path.parent.name}/{path.name}:{number} is damaged")
                continue
            if whole % stride == 0:
                kept.append(parsed)
            last, whole = parsed, whole + 1
            if len(kept) > LINES:
                kept, stride = kept[::2], 2 * stride
    return kept if not kept or kept[-1] is last else [*kept, last]


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return {} if fault(found, _LOGGED) else found
