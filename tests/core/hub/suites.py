"""A suite of small transcoders as it is sent to a hub, and all bytes of a folder."""

import hashlib
import json
from pathlib import Path

import torch

from mtc_core import MatryoshkaTranscoder
from mtc_core.transcoder import expected_shapes
from tests.core.small import D_IN, D_OUT, spec


def make_suite(folder, *seeds):
    """Its ids, one for each seed."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlibrary_name: mtc\n---\n# Ünder test\n")
    ids = []
    for seed in seeds:
        torch.manual_seed(seed)
        one = spec(seed=seed)
        tensors = {name: torch.randn(shape) for name, shape in shapes_of(one).items()}
        MatryoshkaTranscoder(one, tensors).save(folder / one.id)
        (folder / one.id / "labels.json").write_text(json.dumps({"0": "über"}))
        ids.append(one.id)
    (folder / "suite.json").write_text(json.dumps({"ids": ids}))
    return ids


def shapes_of(one):
    return expected_shapes(one, D_IN, D_OUT)


def contents(folder):
    """Digest of each file that is not hidden, by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
