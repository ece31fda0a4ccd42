"""Nothing that is sent tells where on this machine a model or a text lies, wherever one stands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from orchestrator.cli import cli
from orchestrator.commands.share import NAMES
from tests.core.hub.conftest import hub  # noqa: F401 (a fixture)
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, write_manifest

# Of httpx, by huggingface_hub's own uploads.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
PLACES = ("private-work", "acme-merger")
MLPS = "  - {layers: all, source: mlp_in, target: mlp_out}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made with relative paths of a model and a text, where both lie."""
    folder = tmp_path_factory.mktemp("shared")
    save_tiny_model(folder / PLACES[0] / "model", family="llama", n_layers=2)
    (folder / PLACES[1]).mkdir()
    text = "\n\n".join(f"Letter {n}: what we know of prices and of {n} other things." * 4
                       for n in range(900))  # fmt: skip
    (folder / PLACES[1] / "letters.txt").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        manifest = write_manifest(folder, Path(PLACES[0], "model"), tokens=256 * 8,
                                  transcoders=MLPS)  # fmt: skip
        data = f"data.path={PLACES[1]}/letters.txt"
        code, printed = run_here(manifest, folder / "runs", data, "eval.spliced_tokens=0")
    assert code == 0, printed
    return folder


def push(*words: object) -> Result:
    return CliRunner().invoke(cli, ["push", *map(str, words)])


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("format", [None, *NAMES])
def test_only_the_last_part_of_a_path_is_sent(
    folder: Path,
    hub,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    here: bool,
    format: str | None,
) -> None:
    run = folder / "runs" / "small"
    if here:
        monkeypatch.chdir(folder)
    else:  # the model is where it was, and seen from elsewhere its name looks like a Hub id
        monkeypatch.chdir(tmp_path)
        shutil.copytree(folder / PLACES[0], tmp_path / PLACES[0])
    ended = push(run, "hf://org/suite", *(["--format", format] if format else []))
    assert ended.exit_code == 0, ended.output
    from huggingface_hub import snapshot_download

    sent = Path(snapshot_download("org/suite"))
    for path in sent.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [one for one in (*PLACES, str(folder)) if one.encode() in content], path.name
    card = (sent / "README.md").read_text()
    assert "letters.txt" in card and "transcoders of model" in card
    assert "base_model" not in yaml.safe_load(card.split("---")[1])
    assert format or 'ReplacementModel.from_pretrained("model"' in card


@pytest.mark.parametrize("option", ["--only", "--model-name"])
def test_a_blank_option_sends_nothing(folder: Path, option: str) -> None:
    """In a script it is a variable that was not set."""
    ended = push(folder / "runs" / "small", "hf://org/suite", option, "")
    assert ended.exit_code == 2 and "is blank" in ended.output


@pytest.mark.parametrize("command", [
    ("push", "hf://org/s"), ("push", "hf://org/s", "--format", "saelens"),
    ("export", "--format", "saelens", "--out", "OUT"), ("eval", "--tokens", "64"), ("features",),
])  # fmt: skip
def test_damaged_weights_are_neither_measured_nor_sent(
    folder: Path,
    hub,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    """Their figures would stay when the sound ones are restored."""
    monkeypatch.chdir(folder)
    run = shutil.copytree(folder / "runs" / "small", tmp_path / "small")
    weights = next(run.glob("transcoders/*/final/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    for place in range(len(content) - 4000, len(content) - 3000):
        content[place] ^= 1
    weights.write_bytes(content)
    name, *words = command
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    ended = CliRunner().invoke(cli, [name, str(run), *words])
    assert ended.exit_code == 2, ended.output
    assert f"{weights} is not what its sha256.json says" in ended.output
    assert "Delete that final/ and run the manifest again" in ended.output
    assert not list(run.glob("evaluations/*/*.json")) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("address", "told"), [
    ("wandb://user:hf_abcdefghijklmnopqrstuv@x/y", "looks like a token"),
    ("https://user:hf_abcdefghijklmnopqrstuv@huggingface.co/org/name", "write hf://org/name"),
    ("wandb://team/a/b", "is no project on W&B"),
])  # fmt: skip
def test_a_wrong_address_is_told_first_and_without_its_token(
    folder: Path, address: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ended = push(folder / "runs" / "small", address)
    assert ended.exit_code == 2 and told in ended.output and "sending" not in ended.output
    assert "hf_abc" not in ended.output and "user:" not in ended.output


def test_a_terminal_that_is_no_utf8_gets_what_it_can_show(folder: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    run = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    for words in (["metrics", "runs/small"], ["export", "runs/small", "--format", "circuit-tracer",
                                              "--out", str(tmp_path / "out")]):  # fmt: skip
        ended = subprocess.run([*run, *words], cwd=folder, env=env, capture_output=True)
        assert ended.returncode == 0, ended.stderr
    assert "→" in (tmp_path / "out" / "README.md").read_text("utf-8")
