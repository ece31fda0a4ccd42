"""What runs have in common, what differs, and whether their figures can be compared at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtc_core.errors import ConfigError
from orchestrator.registry.small_files import Damaged, read_object
from orchestrator.run_folder.disk_errors import disk_errors

# Of resolved.json: specs say the rest. train.lr is in theirs.
_SECTIONS = ("seed", "init_from", "model", "data", "train")
_NOT_OURS = ("train.lr",)
_SAME_TEXT_ALL_THE_SAME = ("data.shuffle_tokens", "data.streaming", "data.revision")
ABSENT = "–"

Settings = Mapping[str, str]  # key of the manifest -> a word


def read_settings(run: Path) -> dict[str, str]:
    """What decides the result of a run, but for its specs. Raises ConfigError."""
    with disk_errors(run, "read"):
        try:
            resolved = read_object(run / "resolved.json")
        except Damaged as error:
            raise ConfigError(str(error)) from None
    found: dict[str, str] = {}
    for section in _SECTIONS:
        found.update(_leaves(section, (resolved or {}).get(section)))
    pins = (resolved or {}).get("pins") or {}
    for name in ("model", "dataset"):
        if pins.get(name):
            found[f"{name} commit"] = str(pins[name])
    found["held-out text"] = _held_out(run)
    return {name: word for name, word in found.items() if name not in _NOT_OURS}


def apart(settings: Sequence[Settings]) -> dict[str, tuple[str, ...]]:
    """Key -> a word for each run, where they are not all the same."""
    names = dict.fromkeys(name for one in settings for name in one)
    words = {name: tuple(one.get(name, ABSENT) for one in settings) for name in names}
    return {name: each for name, each in words.items() if len(set(each)) > 1}


def in_the_way(different: Iterable[str]) -> list[str]:
    """Of the keys that differ, those that make figures say nothing about each other."""
    return [name for name in different if _decides_the_text(name)]


def _decides_the_text(name: str) -> bool:
    if name in _SAME_TEXT_ALL_THE_SAME:
        return False
    return name.startswith(("model", "data")) or name == "held-out text"


def _held_out(run: Path) -> str:
    """Of which documents, if that is known."""
    try:
        content = (run / "tokens" / "holdout.json").read_bytes()
    except OSError:
        return ABSENT
    return hashlib.sha256(content).hexdigest()[:8]


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, bool):
        yield path, str(value).lower()
    elif value is not None:
        yield path, f"{value:,}" if isinstance(value, int) else str(value)
