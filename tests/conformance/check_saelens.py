"""Load exports with SAELens and compare them with what was expected of them.

    python check_saelens.py CASES

Each folder in CASES holds export/, a folder of entries (cfg.json, sae_weights.safetensors), and
expected.safetensors: ENTRY.x, .acts, .y. Prints one line of JSON with norm-relative differences.
"""

import contextlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

with contextlib.redirect_stdout(sys.stderr):
    import sae_lens


def difference(got, want):
    return ((got - want).norm() / want.norm().clamp(min=1e-30)).item()


@torch.no_grad()
def check(export, want):
    worst = {"acts": 0.0, "y": 0.0, "decode": 0.0}
    entries = {}
    for folder in sorted(file.parent for file in export.glob("*/cfg.json")):
        x, acts, y = (want[f"{folder.name}.{part}"] for part in ("x", "acts", "y"))
        coder = sae_lens.SAE.load_from_disk(folder, device="cpu")
        got = coder.encode(x)
        worst["acts"] = max(worst["acts"], difference(got, acts))
        worst["y"] = max(worst["y"], difference(coder(x), y))
        rest = x @ coder.W_skip.T if hasattr(coder, "W_skip") else 0  # not in its decode
        worst["decode"] = max(worst["decode"], difference(coder.decode(got) + rest, y))
        entries[folder.name] = {
            "class": type(coder).__name__,
            "shape": [coder.cfg.d_in, coder.cfg.d_sae, coder.cfg.d_out],
            "metadata": coder.cfg.metadata.to_dict(),
        }
    assert set(entries) == {key[:-2] for key in want if key.endswith(".x")}, sorted(entries)
    return worst | {"entries": entries}


def main(cases):
    found = {}
    for case in sorted(Path(cases).iterdir()):
        found[case.name] = check(case / "export", load_file(case / "expected.safetensors"))
    return {"tool": "sae-lens", "version": sae_lens.__version__, "cases": found}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        result = main(sys.argv[1])
    print(json.dumps(result))
