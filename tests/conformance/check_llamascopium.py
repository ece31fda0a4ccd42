"""Load exports with llamascopium and compare them with what was expected of them.

    python check_llamascopium.py CASES

Each folder in CASES holds export/, a folder of entries (config.json, sae_weights.safetensors), and
expected.safetensors: ENTRY.x, .acts, .y. Prints one line of JSON with norm-relative differences.
"""

import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file

with contextlib.redirect_stdout(sys.stderr):
    from llamascopium import SparseAutoEncoder


def difference(got, want):
    return ((got - want).norm() / want.norm().clamp(min=1e-30)).item()


@torch.no_grad()
def check(export, want):
    worst = {"acts": 0.0, "y": 0.0, "decode": 0.0}
    entries = {}
    for folder in sorted(file.parent for file in export.glob("*/config.json")):
        x, acts, y = (want[f"{folder.name}.{part}"] for part in ("x", "acts", "y"))
        coder = SparseAutoEncoder.from_pretrained(str(folder), device="cpu")
        got = coder.encode(x)
        worst["acts"] = max(worst["acts"], difference(got, acts))
        worst["y"] = max(worst["y"], difference(coder(x), y))
        worst["decode"] = max(worst["decode"], difference(coder.decode(got), y))
        entries[folder.name] = {
            "shape": [coder.cfg.d_model, coder.cfg.d_sae],
            "hooks": coder.cfg.associated_hook_points,
        }
    assert set(entries) == {key[:-2] for key in want if key.endswith(".x")}, sorted(entries)
    return worst | {"entries": entries}


def main(cases):
    found = {}
    for case in sorted(Path(cases).iterdir()):
        found[case.name] = check(case / "export", load_file(case / "expected.safetensors"))
    return {"tool": "llamascopium", "version": version("llamascopium"), "cases": found}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        result = main(sys.argv[1])
    print(json.dumps(result))
