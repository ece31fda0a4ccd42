"""A flat JSON object as it was written: numbers as their characters, every key with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from orchestrator.messages import ManifestError, Mark, Problem, raise_problems

MAX_BYTES = 300_000
_HOW = "json.dump(cfg, file, default=str) writes one"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:\n]')


@dataclass(frozen=True, slots=True)
class CfgJson:
    """Values by key, without those that are null. W&B wraps each in {"value": …}: unwrapped."""

    source: str
    values: dict[str, object]
    lines: dict[str, int]

    def problem(self, key: str, text: str) -> Problem:
        """One mistake at a key, which may be missing."""
        return Problem(Mark(self.source, self.lines.get(key, 0)), (key,), text)


def read_cfg_json(path: Path) -> CfgJson:
    """Raises ManifestError for a file that cannot be read, is no JSON object, or gives a key
    twice."""
    text = _text(path)
    try:
        pairs = json.loads(
            text, object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=str
        )
    except JSONDecodeError as error:
        raise ManifestError(
            f"{path}:{error.lineno}: is not JSON ({error.msg}, column {error.colno}); {_HOW}"
        ) from None
    except RecursionError:
        raise ManifestError(f"{path}: is nested too deep for a flat config; {_HOW}") from None
    if not isinstance(pairs, tuple):
        raise ManifestError(f'{path}: must be a JSON object such as {{"top_k": 64}}; {_HOW}')
    lines = _lines(text)
    _refuse_twins(pairs, lines, str(path))
    values = {key: _unwrapped(value) for key, value in pairs}
    given = {key: value for key, value in values.items() if value is not None}
    return CfgJson(str(path), given, {key: at[0] for key, at in lines.items()})


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such file; {_HOW}") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestError(f"{path}: cannot be read: {why}") from None
    if len(data) > MAX_BYTES:
        raise ManifestError(f"{path}: a config has at most {MAX_BYTES:,} bytes, this has more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path}:{line}: not UTF-8: byte 0x{data[error.start]:02x}") from None


def _lines(text: str) -> dict[str, list[int]]:
    """Every line on which a key of the outermost object stands, in a text known to be JSON."""
    lines: dict[str, list[int]] = {}
    line, depth, word = 1, 0, ""
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token == ":" and depth == 1:
            lines.setdefault(json.loads(word), []).append(line)
        elif token.startswith('"'):
            word = token
        else:
            depth += (token in "[{") - (token in "]}")
    return lines


def _refuse_twins(
    pairs: Sequence[tuple[str, object]], lines: dict[str, list[int]], source: str
) -> None:
    twins = dict.fromkeys(key for key in dict(pairs) if len(lines[key]) > 1)
    raise_problems(
        Problem(Mark(source, lines[key][1]), (key,), f"is given on line {lines[key][0]}, too")
        for key in twins
    )


def _unwrapped(value: Any) -> object:
    """Objects have been read as tuples of pairs: as dict again, or what W&B wrapped."""
    if not isinstance(value, tuple):
        return value
    inner = dict(value)
    return _unwrapped(inner["value"]) if inner.keys() - {"desc"} == {"value"} else inner
