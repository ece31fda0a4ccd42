"""JSON Schema of a manifest, for editors: `manifests/schema.json`, made from the keys themselves.

    python -m orchestrator.manifest.json_schema manifests/schema.json

It says of every key alone what we accept, with its meaning and default; what lies between keys
(sums, layers of a model) is for `validate`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from orchestrator.manifest.keys import Section, may_change
from orchestrator.manifest.scalars import Reader
from orchestrator.manifest.schema import Entry, Manifest
from orchestrator.messages import KeyPath

DRAFT = "http://json-schema.org/draft-07/schema#"  # what the YAML language server knows best


def json_schema() -> dict[str, Any]:
    """The schema as a JSON-able value."""
    told = {"$schema": DRAFT, "title": "mtc-orchestrator manifest", **_object(Manifest, ())}
    return {**told, "description": "Transcoders that share one forward: manifests/README.md"}


def _object(section: type[Section], path: KeyPath) -> dict[str, Any]:
    fields = section.model_fields
    required = [name for name, info in fields.items() if info.is_required()]
    return {
        "type": "object",
        "description": " ".join((section.__doc__ or "").split()),
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "properties": {name: _property(info, (*path, name)) for name, info in fields.items()},
    }


def _property(info: FieldInfo, path: KeyPath) -> dict[str, Any]:
    annotation = info.annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _object(annotation, path)
    reader = next(item for item in info.metadata if isinstance(item, Reader))
    extra = info.json_schema_extra
    assert isinstance(extra, dict)
    told = dict(reader.json)
    if path == ("transcoders",):
        told["items"] = _object(Entry, path)
    if meaning := info.description:
        unit = f" ({extra['unit']})" if extra["unit"] else ""
        fixed = "" if may_change(path) else " Fixed once something was trained."
        told["description"] = f"{meaning.replace('`', '')}{unit}{fixed}"
    if not info.is_required() and info.default is not None:
        told["default"] = info.default
    return told


def written() -> str:
    """The characters of `manifests/schema.json`."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(written(), encoding="utf-8")
