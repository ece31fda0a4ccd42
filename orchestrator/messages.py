"""How a manifest's mistakes read: file, line, key, what was found, and the nearest valid name.

    manifests/gpt2.yaml:14: transcoders[3].target: unknown site "mlp_ouput"; did you mean "mlp_out"?

Reading never stops at the first mistake: it collects `Problem`s, and one `ManifestError` shows all.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mtc_core.errors import MtcError

CONTROLS = r"\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069"
OBEYED = re.compile(rf"(?![\n\t])[{CONTROLS}]")
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Where a value was written: a line of a file, or an option of the command line (line 0)."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `path` is empty when the text could not even be read as keys and values."""

    mark: Mark
    path: KeyPath
    text: str

    def __str__(self) -> str:
        key = f"{dotted(self.path)}: " if self.path else ""
        text = "\n".join(map(printable, self.text.split("\n")))  # lists of ours have lines
        return printable(f"{self.mark}: {key}") + text


class ManifestError(MtcError):
    """Everything that is wrong with a manifest, one line per problem."""


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise one ManifestError for all problems, in the order of the file; return if none."""
    ordered = sorted(problems, key=lambda problem: problem.mark)
    if ordered:
        raise ManifestError("\n".join(dict.fromkeys(map(str, ordered))))


def dotted(path: KeyPath) -> str:
    """`("transcoders", 3, "target")` as `transcoders[3].target`; odd blanks show in quotes."""
    text = ""
    for part in path:
        if isinstance(part, str) and (not part or part != part.strip()):
            part = json.dumps(part)
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def printable(text: str) -> str:
    """On one line, and nothing that a terminal would obey: manifests may come from anybody."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def harmless(text: str) -> str:
    """Lines of which a terminal obeys nothing, whoever wrote what they quote: no control characters
    but the ends of lines, and none that turn the direction of what follows."""
    return OBEYED.sub(lambda one: ascii(one[0])[1:-1], text)


def found(value: object) -> str:
    """A value as a message shows it: short, on one line, text in double quotes."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        items = ", ".join(shown_item(item) for item in value[:60])
        return f"[{items}]" if len(items) <= 60 else f"[{items[:57]}…]"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + '…"'


def shown_item(item: object) -> str:
    return printable(item) if isinstance(item, str) else found(item)


def suggestion(word: str, choices: Iterable[str]) -> str:
    """`; did you mean "mlp_out"?`, or all choices where none is near."""
    names = list(choices)
    near = difflib.get_close_matches(word, names, n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; valid: {', '.join(names)}"
