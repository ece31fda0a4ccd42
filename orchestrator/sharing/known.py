"""What others may know of where a run's model and text lie: of a place on this machine, its last
part. A run has recorded which of them are; what a name looks like depends on where one stands."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from mtc_core.export.facts import public_model
from mtc_core.model.gguf_package import PREFIX
from mtc_core.model.model_source import in_a_folder, known_as
from mtc_core.tokens.text import PYTHON_DOCS
from orchestrator.evaluating.subject import Subject


def model_of(subject: Subject) -> str:
    return known_as(subject.manifest.model.name, subject.pins["model"])


def data_of(subject: Subject) -> str:
    path = subject.manifest.data.path
    on_hub = path == PYTHON_DOCS or subject.pins.get("dataset") is not None
    return path if on_hub else PurePath(path).name or path


def is_on_the_hub(subject: Subject) -> bool:
    """Whether the model's own name is a Hub id."""
    name = subject.manifest.model.name
    return not (in_a_folder(subject.pins["model"]) or name.startswith(PREFIX))


def without_places(subject: Subject, config: dict[str, Any]) -> dict[str, Any]:
    """A transcoder's config.json."""
    shown = dict(config)
    if model := shown.get("model"):
        shown["model"] = public_model(model)
    if data := shown.get("data"):
        shown["data"] = {**data, "path": data_of(subject)}
    if start := shown.get("init_from"):
        shown["init_from"] = {**start, "folder": PurePath(start["folder"]).parent.name}
    return shown
