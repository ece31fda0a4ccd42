"""The key table of `manifests/README.md`, made from the schema so that the two cannot drift.

    python -m orchestrator.manifest.reference manifests/README.md

rewrites what stands between the two marks in that file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from orchestrator.manifest.keys import Section, may_change
from orchestrator.manifest.scalars import Reader
from orchestrator.manifest.schema import Entry, Manifest, TranscoderFields
from orchestrator.messages import KeyPath

START = "<!-- keys: made by orchestrator.manifest.reference -->"
END = "<!-- end of keys -->"


def reference() -> str:
    """Markdown: one table for each section of a manifest."""
    top = {name: f for name, f in Manifest.model_fields.items() if f.description}
    parts = ["### Top level", *_table(top, ())]
    for name, info in Manifest.model_fields.items():
        if not info.description and name not in ("defaults", "transcoders"):
            section = info.annotation
            assert isinstance(section, type) and issubclass(section, Section)
            parts += [
                f"### `{name}`",
                _sentence(section),
                "",
                *_table(section.model_fields, (name,)),
            ]
    shared = TranscoderFields.model_fields
    own = {name: info for name, info in Entry.model_fields.items() if name not in shared}
    parts += ["### `transcoders`", _sentence(Entry), "", *_table(own, ("transcoders",))]
    parts += ["### `defaults`, and every entry of `transcoders`", _sentence(TranscoderFields), ""]
    parts += _table(shared, ("defaults",))
    return "\n".join(parts).strip() + "\n"


def spliced(document: str) -> str:
    """The document with a fresh reference between its marks."""
    before, start, rest = document.partition(START)
    _, end, after = rest.partition(END)
    assert start and end, f"{START} and {END} must both stand in the document"
    return f"{before}{START}\n\n{reference()}\n{END}{after}"


def _table(fields: dict[str, FieldInfo], section: KeyPath) -> Iterator[str]:
    yield "| key | accepts | default | unit | may change | meaning |"
    yield "|---|---|---|---|---|---|"
    for name, info in fields.items():
        accepts = next(m.accepts for m in info.metadata if isinstance(m, Reader))
        extra = info.json_schema_extra
        assert isinstance(extra, dict)
        free = "yes" if may_change((*section, name)) else ""
        unit, meaning = str(extra["unit"]), info.description or ""
        cells = [f"`{name}`", accepts, _default(info), unit, free, meaning]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value: Any = info.default
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`"


def _sentence(section: type[Section]) -> str:
    return " ".join((section.__doc__ or "").split())


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(spliced(target.read_text(encoding="utf-8")), encoding="utf-8")
