"""What the keys of a manifest are made of: sections, fields with their meaning, and which of them
are a run's identity."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mtc_core.sites import KINDS
from orchestrator.messages import KeyPath

ENTRY = "{layers: all, source: resid_mid, target: mlp_out}"
# What W&B itself refuses, told before anything has run.
WANDB_NAME = r"(?=.*\S)[^/\\#?%:]{1,128}"
WANDB_WANTED = "must be 1 to 128 characters without / \\ # ? % :"

# A site as editors know it.
SITE = {
    "anyOf": [
        {"enum": list(KINDS)},
        {"type": "string", "pattern": rf"^\d+\.({'|'.join(KINDS)})$"},
        {"type": "string", "pattern": r"^(.+\.)?hook_[A-Za-z0-9_]+$"},
    ]
}


class Section(BaseModel):
    """A mapping of a manifest: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def key(meaning: str, default: Any = ..., unit: str = "", example: str = "") -> Any:
    """A field with what the reference says about it; a required one has an example."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit, "example": example})


def may_change(path: KeyPath) -> bool:
    """Whether a key may differ between two invocations of one run: it decides no bit of the result.
    All others are the identity of a run."""
    return path[0] in ("resources", "eval", "tracking") and path != ("resources", "threads")


def part(example: str, default: Any = ...) -> Any:
    """A section, with an example of what it may hold."""
    return Field(default, json_schema_extra={"example": example})
