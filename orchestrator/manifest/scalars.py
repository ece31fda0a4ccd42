"""From the characters of a manifest to values: counts, numbers, words, switches, layers.

A `Reader` is put beside a type in the schema: it converts, words the mistake, and says in the
reference what it accepts. It also accepts what it returned before, so that `resolved.json` reads
back through the same schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from orchestrator.messages import CONTROLS, found, suggestion

AUTO = "auto"
MAX_COUNT = 10**15
MAX_LAYER = 999
_CONTROL = re.compile(f"[{CONTROLS}]")
_NUMBER = re.compile(r"[+-]?(\d+(_\d+)*)?(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)
_COUNT = re.compile(r"(?P<number>[+-]?[\d_.]*\d([eE][+-]?\d{1,3})?)(?P<unit>[kMBT]?)", re.ASCII)
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_DIGITS = r"(\d+(_\d+)*)?(\.\d+)?([eE][+-]?\d{1,3})?"  # for editors
_RANGE = re.compile(r"(\d{1,9})(-(\d{1,9}))?", re.ASCII)
_EMPTY = "must not be an empty list; give a value, or remove the key"
_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}


class Wrong(ValueError):
    """A value that a reader refuses; its text follows the key in the message."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Converts one value. `accepts` is the reference's word for what may be written; `json` says it
    to editors, as JSON Schema of what YAML 1.2 makes of the characters."""

    read: Callable[[object], Any]
    accepts: str
    json: dict[str, Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._validate, handler(source))

    def _validate(self, value: object) -> Any:
        try:
            return self.read(value)
        except Wrong as wrong:
            raise PydanticCustomError("wrong", "{text}", {"text": str(wrong)}) from None


def count(low: int = 1, high: int = MAX_COUNT) -> Reader:
    """A whole number within these bounds: `8192`, `8_192`, `1e8`, `100M`, `2k` (k = 1000)."""

    def read(value: object) -> int:
        number = _as_count(value)
        if number < low:
            raise Wrong(f"must be at least {low}, found {found(value)}")
        if number > high:
            raise Wrong(f"must be at most {high:,}, found {found(value)}")
        return number

    accepts = "whole number" if low == 1 else f"whole number ≥ {low}"
    accepts += f" ≤ {high:,}" if high < MAX_COUNT else ""
    plain = {"type": "integer", "minimum": low, "maximum": high}
    return Reader(read, accepts, _any_of(plain, _pattern(rf"(?=.*\d)[+]?{_DIGITS}[kMBT]?")))


def _as_count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    wanted = f"must be a whole number such as 8192, 1e8 or 100M, found {found(value)}"
    match = _COUNT.fullmatch(_scalar(value, wanted))
    if not match or not _NUMBER.fullmatch(match["number"]):
        raise Wrong(wanted)
    exact = Decimal(match["number"].replace("_", "")) * _UNITS[match["unit"]]
    if exact > MAX_COUNT:
        raise Wrong(f"must be at most 1e15, found {found(value)}")
    if exact != exact.to_integral_value():
        raise Wrong(wanted)
    return int(exact)


def number(low: float = 0, high: float = float("inf"), *, above: bool = False) -> Reader:
    """A finite number in [low, high], or in (low, high] with `above`: `1e-3`, `0.2`."""

    def read(value: object) -> float:
        wanted = f"must be a number such as 0.001 or 1e-3, found {found(value)}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            result = float(value)
        else:
            text = _scalar(value, wanted)
            if not _NUMBER.fullmatch(text) or not re.search(r"\d", text):
                raise Wrong(wanted)
            result = float(text)
        if not isfinite(result):
            raise Wrong(f"must be a finite number, found {found(value)}")
        if not low <= result <= high or (above and result == low):
            raise Wrong(f"must be {limits}, found {found(value)}")
        return result

    limits = f"more than {low}" if above else f"at least {low}"
    limits += f" and at most {high}" if isfinite(high) else ""
    accepts = f"number {limits.replace('more than', '>').replace('at least', '≥')}"
    plain = {"type": "number", "exclusiveMinimum" if above else "minimum": low}
    if isfinite(high):
        plain["maximum"] = high
    return Reader(read, accepts, _any_of(plain, _pattern(rf"(?=.*\d)[+]?{_DIGITS}")))


def switch() -> Reader:
    """True or false."""

    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        wanted = f"must be true or false, found {found(value)}"
        word = _scalar(value, wanted).lower()
        if word not in _TRUE | _FALSE:
            raise Wrong(wanted)
        return word in _TRUE

    words = sorted(form(word) for word in _TRUE | _FALSE for form in (str, str.title, str.upper))
    return Reader(read, "`true`, `false`", _any_of({"type": "boolean"}, {"enum": words}))


def choice(*words: str, refused: dict[str, str] | None = None) -> Reader:
    """One of `words`. `refused` are words that exist but cannot be had, with the reason."""

    def read(value: object) -> str:
        word = _scalar(value, f"must be one of {', '.join(words)}, found {found(value)}")
        if reason := (refused or {}).get(word):
            raise Wrong(reason)
        if word not in words:
            raise Wrong(f"unknown value {found(word)}{suggestion(word, words)}")
        return word

    return Reader(read, ", ".join(f"`{word}`" for word in words), {"enum": list(words)})


def text(
    pattern: str = r".*\S.*",
    wanted: str = "must not be blank",
    accepts: str = "text",
    json: dict[str, Any] | None = None,
) -> Reader:
    """Text that matches `pattern` as a whole. `json`: what editors are told instead."""

    def read(value: object) -> str:
        characters = _scalar(value, f"must be text, found {found(value)}")
        if _CONTROL.search(characters):
            raise Wrong(f"must not hold control characters, found {found(characters)}")
        if not re.fullmatch(pattern, characters):
            raise Wrong(f"{wanted}, found {found(characters)}")
        return characters

    # To YAML a name such as 010 is a number.
    numeral = {"type": "integer", "minimum": 0}
    written = _pattern(rf"(?![\s\S]*[{CONTROLS}])(?:{pattern})")
    told = json or (_any_of(written, numeral) if re.fullmatch(pattern, "010") else written)
    return Reader(read, accepts, told)


def auto_or(reader: Reader) -> Reader:
    """`auto`, or what `reader` takes."""

    def read(value: object) -> Any:
        return AUTO if value == AUTO else reader.read(value)

    return Reader(read, f"`auto`, {reader.accepts}", _any_of({"const": AUTO}, reader.json))


def optional(reader: Reader) -> Reader:
    """What `reader` takes; None only as the default of a key that was not given."""

    def read(value: object) -> Any:
        return None if value is None else reader.read(value)

    return Reader(read, reader.accepts, reader.json)


def list_of(reader: Reader) -> Reader:
    """A list with at least one item; a mistake names the item by its number."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise Wrong(f"must be a list such as [576, 1152], found {found(value)}")
        if not value:
            raise Wrong(_EMPTY)
        return tuple(_item(reader, item, index) for index, item in enumerate(value))

    return Reader(read, f"list of {reader.accepts}", _array(reader.json))


def non_empty() -> Reader:
    """A list with at least one item, whose items the schema reads."""

    def read(value: object) -> object:
        if isinstance(value, list | tuple) and not value:
            raise Wrong("must list at least one transcoder, found []")
        return value

    return Reader(read, "list of mappings", {"type": "array", "minItems": 1})


def sweep(reader: Reader) -> Reader:
    """One value, or a list of different values that are tried one by one. Reads as a tuple."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            return (reader.read(value),)
        values: tuple[Any, ...] = list_of(reader).read(value)
        seen: set[Any] = set()
        for written, item in zip(value, values, strict=True):
            if item in seen:
                raise Wrong(f"{found(written)} is listed twice; remove one")
            seen.add(item)
        return values

    several = {**_array(reader.json), "uniqueItems": True}
    return Reader(read, f"{reader.accepts}, or a list of them", _any_of(reader.json, several))


def _item(reader: Reader, item: object, index: int) -> Any:
    try:
        return reader.read(item)
    except Wrong as wrong:
        raise Wrong(f"item {index}: {wrong}") from None


def layer_set() -> Reader:
    """`all`, `even`, `odd`, `3`, `0-5` or `[0, 3, 8]`; numbers are read as a sorted tuple."""
    wanted = "must be all, even, odd, a layer such as 3, a range such as 0-5, or a list of layers"

    def read(value: object) -> str | tuple[int, ...]:
        if isinstance(value, str) and value in ("all", "even", "odd"):
            return value
        items: Sequence[object] = value if isinstance(value, list | tuple) else [value]
        if not items:
            raise Wrong(_EMPTY)
        numbers: list[int] = []
        for item in items:
            for layer in _layer_range(item, wanted):
                if layer in numbers:
                    raise Wrong(f"layer {layer} is listed twice; remove one")
                numbers.append(layer)
        return tuple(sorted(numbers))

    one = {"type": "integer", "minimum": 0, "maximum": MAX_LAYER}
    span = _any_of(one, _pattern(r"\d{1,9}(-\d{1,9})?"))
    told = _any_of({"enum": ["all", "even", "odd"]}, *span["anyOf"], _array(span))
    return Reader(read, "`all`, `even`, `odd`, `3`, `0-5`, `[0, 3, 8]`", told)


def _layer_range(item: object, wanted: str) -> range:
    match = _RANGE.fullmatch(str(item)) if isinstance(item, str | int) else None
    if not match:
        raise Wrong(f"{wanted}, found {found(item)}")
    first, last = int(match[1]), int(match[3] or match[1])
    if last < first:
        raise Wrong(f"the range {item} runs backwards; write {last}-{first}")
    if last > MAX_LAYER:
        raise Wrong(f"must be layers below {MAX_LAYER + 1}, found {found(item)}")
    return range(first, last + 1)


def _any_of(*choices: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(choices)}


def _pattern(regex: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^(?:{regex})$"}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


def _scalar(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise Wrong(wanted)
    return value
