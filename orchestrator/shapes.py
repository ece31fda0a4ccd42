"""Does a file of JSON have what its reader needs? Files are written by us, but by older versions
too, and disks and people change them: who only looks is to say so, not to fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NUMBER = (int, float)


@dataclass(frozen=True, slots=True)
class Maybe:
    """null, or of that shape. absent: a key that may be missing, too."""

    shape: Any
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Each:
    """An object of any keys, whose values are of that shape."""

    shape: Any


@dataclass(frozen=True, slots=True)
class Either:
    """Of the first shape, or of the second, whose faults are told."""

    first: Any
    second: Any


def fault(value: Any, shape: Any, at: str = "") -> str:
    """The first place where a value is not of a shape, in words; nothing if it is. A shape: a type
    or types, an object with at least those keys, a list of one shape, Maybe, Either or Each."""
    match shape:
        case Maybe():
            return "" if value is None else fault(value, shape.shape, at)
        case Either():
            return fault(value, shape.first, at) and fault(value, shape.second, at)
        case Each():
            if not isinstance(value, Mapping):
                return f"{at or 'it'} is no object"
            return _first(fault(item, shape.shape, _within(at, key)) for key, item in value.items())
        case dict():
            if not isinstance(value, Mapping):
                return f"{at or 'it'} is no object"
            needed = {key: inner for key, inner in shape.items() if key in value or not (
                isinstance(inner, Maybe) and inner.absent)}  # fmt: skip
            lacking = next((key for key in needed if key not in value), None)
            if lacking is not None:
                return f"{_within(at, lacking)} is missing"
            return _first(
                fault(value[key], inner, _within(at, key)) for key, inner in needed.items()
            )
        case list():
            if not isinstance(value, list):
                return f"{at or 'it'} is no list"
            return _first(fault(item, shape[0], f"{at}[{i}]") for i, item in enumerate(value))
    right = isinstance(value, shape) and not (shape == NUMBER and isinstance(value, bool))
    return "" if right else f"{at or 'it'} is {value!r:.40}"


def _within(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _first(faults: Any) -> str:
    return next((one for one in faults if one), "")
