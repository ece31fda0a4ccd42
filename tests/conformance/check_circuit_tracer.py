"""Load transcoder sets with circuit-tracer and compare them with what was expected of them.

    python check_circuit_tracer.py CASES

Each folder in CASES holds export/ (config.yaml, layer_I.safetensors) and expected.safetensors:
layer_I.x, .acts, .y. With model/, of transformers, also prompt.tokens, which begin with BOS, and
prompt.acts [layer, position, latent] and .logits of it; an attribution graph is made of them.
Prints one line of JSON with norm-relative differences.
"""

import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import torch
import transformer_lens.loading_from_pretrained as loading
from circuit_tracer import ReplacementModel, attribute
from circuit_tracer.utils.hf_utils import load_transcoder_from_hub
from safetensors.torch import load_file

CPU = torch.device("cpu")


def difference(got, want):
    return ((got - want).norm() / want.norm().clamp(min=1e-30)).item()


@torch.no_grad()
def by_rows(export, want):
    coders, config = load_transcoder_from_hub(export, device=CPU)
    worst = {"acts": 0.0, "y": 0.0, "decode": 0.0}
    for i, coder in enumerate(coders):
        x, acts, y = (want[f"layer_{i}.{part}"] for part in ("x", "acts", "y"))
        got = coder.encode(x)
        worst["acts"] = max(worst["acts"], difference(got, acts))
        worst["y"] = max(worst["y"], difference(coder(x), y))
        worst["decode"] = max(worst["decode"], difference(coder.decode(got, x), y))
    assert f"layer_{len(coders)}.x" not in want, "it did not load every layer"
    return worst | {"entries": len(coders), "skip": coders.skip_connection, "config": config}


def by_model(export, model, want):
    tokens, acts = want["prompt.tokens"], want["prompt.acts"]
    with mock.patch.object(loading, "get_official_model_name", str):  # let a folder through
        net = ReplacementModel.from_pretrained(model, export, "transformerlens", CPU)
    logits, features = net.get_activations(tokens[None])
    graph = attribute(tokens, net, max_n_logits=3, batch_size=32)
    edges, active = graph.adjacency_matrix, graph.active_features
    expected = (acts[:, 1:] > 0).nonzero() + torch.tensor([0, 1, 0])  # it zeroes position 0
    return {
        "features": difference(features[:, 1:], acts[:, 1:]),
        "logits": difference(logits[0], want["prompt.logits"]),
        "graph_acts": difference(graph.activation_values, acts[tuple(active.T)]),
        "same_active": sorted(active.tolist()) == expected.tolist(),
        "active": len(active),
        "edges": int((edges != 0).sum()),
        "all_finite": bool(edges.isfinite().all()),
    }


def main(cases):
    found = {}
    for case in sorted(Path(cases).resolve().iterdir()):  # only an absolute path is a folder to it
        export, want = str(case / "export"), load_file(case / "expected.safetensors")
        found[case.name] = by_rows(export, want)
        if (case / "model").exists():
            model = str((case / "model").resolve())
            found[case.name] |= by_model(export, model, want)
    return {"tool": "circuit-tracer", "version": version("circuit-tracer"), "cases": found}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        result = main(sys.argv[1])
    print(json.dumps(result))
