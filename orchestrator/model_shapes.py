"""The shape of a model by its name, without loading a weight and, where it can be, without network.

`shapes.json` holds public config fields of common models, so that checking and planning them needs
no Hub; `run` compares the shape with the model that it loads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import is_local, read_cached_config, read_config
from mtc_core.places import is_folder, place


def find_shape(name: str, revision: str, online: bool) -> ModelShape | None:
    """The shape of a model: from a local folder, from `shapes.json`, from the Hub's cache here or,
    if `online`, from wherever the model itself comes. None if it is not known offline.

    Raises ModelError if a config can be had but not used, or cannot be had `online`."""
    known = {} if is_local(name) else known_configs()
    if name in known:
        return ModelShape.from_config(known[name])
    if online or is_folder(place(name)):
        return ModelShape.from_config(read_config(name, revision))
    cached = read_cached_config(name, revision)
    return None if cached is None else ModelShape.from_config(cached)


def known_configs() -> dict[str, dict[str, Any]]:
    """Fields of a config.json by the name of the model."""
    return json.loads(Path(__file__).with_name("shapes.json").read_text(encoding="utf-8"))
