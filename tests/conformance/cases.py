"""What the other tools are asked to read: exports of trained suites, whole ones and damaged ones.

    TOOL/CASE/export/               what `mtc-orchestrate export` wrote, or that and a damage
    TOOL/CASE/expected.safetensors  what it shall give
    TOOL/CASE/model                 the model, readable for circuit-tracer, where it is asked, too

TOOL names a program here: check_TOOL.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.peers_environment import make_readable
from mtc_core import MatryoshkaTranscoder
from orchestrator.cli import cli
from tests.conformance.suites import KINDS, Suite, above_threshold, expected

# Program of tests/conformance that asks a tool -> name of the format it reads.
FORMATS = {
    "circuit_tracer": "circuit-tracer",
    "saelens": "saelens",
    "sparsify": "sparsify",
    "llamascopium": "llamascopium",
}
_AT_MLP = ("topk", "topk-skip", "mlp")
WHOLE = {
    "circuit_tracer": ("batchtopk", "skip", *_AT_MLP, "normalized", "early"),  # it replaces MLPs
    "saelens": tuple(KINDS),
    "sparsify": (*_AT_MLP, "block"),  # it reads a module's input
    "llamascopium": ("batchtopk", "topk", "mlp", "normalized", "block"),  # no skip connections
}


def export(run: Path, format: str, out: Path) -> None:
    words = ["export", str(run), "--format", format, "--out", str(out)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output


def write_case(program: str, suite: Suite, case: Path) -> None:
    """Export a suite, and write down what it shall give."""
    export(suite.run, FORMATS[program], case / "export")
    want: dict[str, Tensor] = {}
    for layer, (id, tc) in enumerate(suite.by_layer()):
        name, k = id, None
        if program == "circuit_tracer":
            name = f"layer_{layer}"
        if program == "sparsify":
            name, k = _hookpoint_and_k(layer, tc, case / "export")
        want |= expected(name, tc, suite.x_RD[tc.spec.source.tensor], k)
    if program == "circuit_tracer":
        shutil.copytree(suite.model, case / "model")
        make_readable(case / "model")
        sources = [(tc, suite.prompt_x_TD[tc.spec.source.tensor]) for _, tc in suite.by_layer()]
        want["prompt.tokens"], want["prompt.logits"] = suite.prompt_T, suite.logits_TV
        want["prompt.acts"] = torch.stack([above_threshold(tc, x_TD) for tc, x_TD in sources])
    save_file(want, case / "expected.safetensors")


def _hookpoint_and_k(layer: int, tc: MatryoshkaTranscoder, folder: Path) -> tuple[str, int]:
    """Found by the layer; tests tell whether sparsify takes it for what it is."""
    (place,) = (file.parent for file in folder.glob("*/cfg.json") if str(layer) in file.parent.name)
    k = tc.spec.k if tc.spec.selection == "topk" else round(tc.provenance["l0_test"])
    assert json.loads((place / "cfg.json").read_text())["k"] == k
    return place.name, k


def _edit(change: Callable[[str, Tensor], Tensor]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        files = sorted(folder.rglob("*.safetensors"))
        for file in files:
            tensors = {name: change(name, tensor) for name, tensor in load_file(file).items()}
            save_file(tensors, file, metadata={"format": "pt"})
        assert files

    return damage


def _swap_layers(folder: Path) -> None:
    first, *_, last = sorted(folder.rglob("*.safetensors"))
    first_bytes = first.read_bytes()
    first.write_bytes(last.read_bytes())
    last.write_bytes(first_bytes)


def _keep_one_more(folder: Path) -> None:
    for file in folder.rglob("cfg.json"):
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"k": config["k"] + 1}))


def _hook_earlier(folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    assert text.count("hook_resid_mid") == 1, text
    (folder / "config.yaml").write_text(text.replace("hook_resid_mid", "hook_resid_pre"))


def _lower_threshold(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("log_jumprelu_threshold"):
        return tensor - 1
    return tensor * 0 if name.endswith("threshold") else tensor


def _no_skip(name: str, tensor: Tensor) -> Tensor:
    return tensor * 0 if name == "W_skip" else tensor


def _other_model(name: str, tensor: Tensor) -> Tensor:
    return tensor * 1.1 if name == "model.norm.weight" else tensor


# Damage -> what is damaged, of which kind of suite, and the first figure that must then be off.
DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "layers swapped": (_swap_layers, "mlp", "acts"),
    "threshold lowered": (_edit(_lower_threshold), "batchtopk", "acts"),
    "skip lost": (_edit(_no_skip), "topk-skip", "y"),
    "k one more": (_keep_one_more, "topk", "acts"),
    "input hook earlier": (_hook_earlier, "batchtopk", "features"),
    "model changed": (_edit(_other_model), "batchtopk", "logits"),
}
_OF_ALL = ("layers swapped", "threshold lowered", "skip lost")
DAMAGED = {
    "circuit_tracer": (*_OF_ALL, "input hook earlier", "model changed"),
    "saelens": _OF_ALL,
    "sparsify": ("layers swapped", "skip lost", "k one more"),
    "llamascopium": ("layers swapped", "threshold lowered"),
}


def damage_case(name: str, cases: Path) -> None:
    """A copy of a case with its export, or its model, damaged, and what it shall give as it was."""
    damage, kind, _ = DAMAGES[name]
    shutil.copytree(cases / kind, cases / name)
    damage(cases / name / ("model" if name == "model changed" else "export"))
