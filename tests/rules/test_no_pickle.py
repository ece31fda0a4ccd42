"""Nothing from a disk or a network can make us run code: no module does what would unpickle it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NEEDED = {  # what a call must say
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "AutoModelForCausalLM.from_pretrained": ("use_safetensors", True),
}
NEVER = {"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load"}


def dangers(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from MODULES & {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            yield from MODULES & {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in NEVER:
                yield name
            if name in NEEDED:
                argument, value = NEEDED[name]
                said = {word.arg: ast.unparse(word.value) for word in node.keywords}
                if said.get(argument) != str(value) and "gguf_file" not in said:  # no pickle either
                    yield f"{name} without {argument}={value}"


def test_no_module_unpickles() -> None:
    files = [*(ROOT / "mtc_core").rglob("*.py"), *(ROOT / "orchestrator").rglob("*.py")]
    assert len(files) > 150
    found = [f"{path}: {what}" for path in files for what in dangers(path.read_text("utf-8"))]
    assert not found, found


@pytest.mark.parametrize(
    "line,danger",
    [
        ("import pickle", "pickle"),
        ("from joblib import load", "joblib"),
        ("torch.load(path)", "torch.load without weights_only=True"),
        ("np.load(path, allow_pickle=True)", "np.load without allow_pickle=False"),
        ("yaml.load(text, Loader)", "yaml.load"),
        ("torch.load(path, weights_only=True)", None),
        ("yaml.compose(text)", None),
    ],
)
def test_dangers_are_seen(line: str, danger: str | None) -> None:
    assert list(dangers(line)) == ([danger] if danger else [])
