"""`--where`: which rows count. `k=32`, `fvu<0.3`, `run=sweep-*`, `state!=done`, `kl!=none`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from mtc_core.errors import ConfigError
from orchestrator.messages import suggestion
from orchestrator.registry.columns import RUN, TRANSCODER

_FILTER = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_LAYERS = re.compile(r"(\d+)(?:-(\d+))?")
_WORDS = {"true": 1, "false": 0}
NOTHING = "none"
MOST = 2**63 - 1  # integers that SQLite holds
ASKED = {name: kind for name, kind in (RUN | TRANSCODER).items() if name != "path"}


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of an SQL WHERE, and its values. columns: what it asks for."""

    sql: str
    values: tuple[Any, ...]
    columns: tuple[str, ...]


def parse_filters(
    filters: Iterable[str], columns: Collection[str] = ASKED.keys()
) -> list[Condition]:
    """Raises ConfigError with everything that is wrong with them."""
    found, wrong = [], []
    for text in filters:
        try:
            found.append(_parsed(text, columns))
        except ValueError as error:
            wrong.append(f"--where {text!r}: {error}")
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def parse_layers(text: str) -> Condition:
    """`3`, `0-5`, `0,3,8-11`: those whose source or target lies there. Raises ConfigError."""
    ranges: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _LAYERS.fullmatch(part.strip())
        if not match:
            raise ConfigError(f"--layer {text}: {part!r} is no layer; write 3, 0-5 or 0,3,8-11")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ConfigError(f"--layer {text}: {part.strip()} ends before it begins")
        ranges.append((min(first, MOST), min(last, MOST)))
    ends = ("source_layer", "target_layer")
    sql = " OR ".join(f"{end} BETWEEN ? AND ?" for end in ends for _ in ranges)
    return Condition(f"({sql})", tuple(end for one in ranges * 2 for end in one), ends)


def _parsed(text: str, columns: Collection[str]) -> Condition:
    match = _FILTER.fullmatch(text)
    if not match:
        raise ValueError("this is no condition; write COLUMN=VALUE, or !=, <, <=, >, >= for the =")
    column, sign, value = match.groups()
    if column not in columns:
        raise ValueError(f"there is no column {column}{suggestion(column, columns)}")
    name = f"r.{column}" if column in RUN else f"t.{column}"
    if value == NOTHING and sign in ("=", "!="):
        return Condition(f"{name} IS {'NOT ' * (sign == '!=')}NULL", (), (column,))
    if value.startswith("="):
        raise ValueError(f"write one = ({column}{sign}{value.lstrip('= ')})")
    if ASKED[column] is str:
        return Condition(*_of_text(name, sign, value), (column,))
    sign = "IS NOT" if sign == "!=" else sign  # also of what is not known
    return Condition(f"{name} {sign} ?", (_number(column, value),), (column,))


def _of_text(name: str, sign: str, value: str) -> tuple[str, tuple[str]]:
    if sign not in ("=", "!="):
        column = name.partition(".")[2]
        raise ValueError(f"{column} is text, which = and != compare; in it * stands for anything")
    if not set("*?") & set(value):
        return f"{name} {'IS NOT' if sign == '!=' else sign} ?", (value,)
    like = value.replace("[", "[[]")  # SQLite's sets of characters; our lists are JSON
    if sign == "!=":
        return f"({name} NOT GLOB ? OR {name} IS NULL)", (like,)
    return f"{name} GLOB ?", (like,)


def _number(column: str, value: str) -> float:
    if value in _WORDS and ASKED[column] is bool:
        return _WORDS[value]
    plain = value.replace("_", "")
    try:  # a seed may have more digits than a float
        return number if abs(number := int(plain)) <= MOST else float(plain)
    except ValueError:
        pass
    try:
        return float(plain)
    except ValueError:
        kind = "true or false" if ASKED[column] is bool else "a number"
        raise ValueError(f"{column} is {kind}, and {value!r} is not") from None
