"""Reading the small JSON files of a run while others write there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What comes of JSON that holds something else than its writer writes.
ODD = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
TAIL_BYTES = 1 << 16  # a line of metrics.jsonl has some hundred bytes and twenty for each prefix


class Damaged(ValueError):
    """A file whose content is not what its writer writes; the text names it."""


class Notes:
    """What is wrong with the files of one row, which are told by their names in its folder: the
    same wherever the run is looked at from."""

    def __init__(self, folder: str | Path) -> None:
        self._before = f"{folder}/"
        self._found: list[str] = []

    @contextmanager
    def of_damage(self) -> Iterator[None]:
        """Go on after a damaged file, and remember it."""
        try:
            yield
        except Damaged as error:
            self.add(str(error))

    def add(self, complaint: str) -> None:
        self._found.append(complaint.removeprefix(self._before))

    @property
    def text(self) -> str | None:
        return "; ".join(self._found) or None


def read_object(path: str | Path) -> dict[str, Any] | None:
    """The JSON object of a file; None if there is no such file. Raises Damaged, OSError."""
    try:
        with open(path, "rb") as file:
            return parse_object(file.read(), str(path))
    except FileNotFoundError:
        return None


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object. Raises Damaged, naming its file."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise Damaged(f"{name} is damaged: it holds no JSON object")
    return value


def read_last_line(path: str) -> dict[str, Any] | None:
    """The last whole line of a JSON lines file that may be growing; None if there is none yet.
    Raises Damaged, OSError."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return None
    whole = tail[: tail.rfind(b"\n") + 1].splitlines()
    return parse_object(whole[-1], f"{path}, last line,") if whole else None


def number(value: Any) -> Any:
    """A number for a column; anything else is not known."""
    return value if isinstance(value, int | float) else None


def text(value: Any) -> Any:
    """Text for a column; anything else is not known."""
    return value if isinstance(value, str) else None


def as_json(value: Any) -> str | None:
    """A list or an object for a column."""
    return None if value is None else json.dumps(value, ensure_ascii=False)
