"""A small sound manifest, line by line, and ways to spoil or extend it."""

from __future__ import annotations

from pathlib import Path

LINES = {
    1: "name: t",
    2: "model: {name: gpt2}",
    3: "data: {path: python-docs}",
    4: "train: {tokens: 1M}",
    5: "defaults: {group_sizes: [768, 1536], k: 64}",
    6: "transcoders:",
    7: "  - {layers: 0-1, source: resid_mid, target: mlp_out}",
}


def manifest_text(lines: dict[int, str] | None = None) -> str:
    """The sound manifest with some lines replaced or added; an empty line takes one away."""
    return "\n".join(text for _, text in sorted((LINES | (lines or {})).items())) + "\n"


def write_manifest(folder: Path, lines: dict[int, str] | None = None) -> Path:
    path = folder / "m.yaml"
    path.write_text(manifest_text(lines))
    return path
