"""Load exports with sparsify and compare them with what was expected of them.

    python check_sparsify.py CASES

Each folder in CASES holds export/, a folder of hookpoints (cfg.json, sae.safetensors), and
expected.safetensors: HOOKPOINT.x, .acts, .y. Prints one line of JSON with norm-relative
differences. Wants SPARSIFY_DISABLE_TRITON=1 where there is no GPU.
"""

import contextlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

with contextlib.redirect_stdout(sys.stderr):  # it prints which decoder it took
    import sparsify


def difference(got, want):
    return ((got - want).norm() / want.norm().clamp(min=1e-30)).item()


@torch.no_grad()
def check(export, want):
    worst = {"acts": 0.0, "y": 0.0}
    entries = {}
    coders = sparsify.SparseCoder.load_many(str(export), local=True)  # every folder in it
    for name, coder in coders.items():
        x, acts, y = (want[f"{name}.{part}"] for part in ("x", "acts", "y"))
        code = coder.encode(x)
        got = torch.zeros_like(acts).scatter(-1, code.top_indices, code.top_acts)
        worst["acts"] = max(worst["acts"], difference(got, acts))
        worst["y"] = max(worst["y"], difference(coder(x, y).sae_out, y))
        entries[name] = {
            "shape": [coder.d_in, coder.num_latents],
            "k": coder.cfg.k,
            "transcode": coder.cfg.transcode,
            "skip": coder.W_skip is not None,
        }
    assert set(entries) == {key[:-2] for key in want if key.endswith(".x")}, sorted(entries)
    return worst | {"entries": entries}


def main(cases):
    found = {}
    for case in sorted(Path(cases).iterdir()):
        found[case.name] = check(case / "export", load_file(case / "expected.safetensors"))
    return {"tool": "eai-sparsify", "version": sparsify.__version__, "cases": found}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        result = main(sys.argv[1])
    print(json.dumps(result))
