"""What a run folder, a model or a neighbour on this machine could do to whoever uses them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner

from mtc_core import load_suite
from mtc_core.errors import MtcError
from orchestrator.cli import cli
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, uninterrupted, write_manifest
from tests.hardening.conftest import Tally, sample
from tests.ray.commands import Command, adopting, running
from tests.ray.harm import until

pytestmark = pytest.mark.hardening
ONE = "  - {layers: 0, source: resid_mid, target: mlp_out}"
COMMANDS = (
    "run {manifest} --root {root} --backend local",
    "status {run}",
    "metrics {run}",
    "eval {run} --tokens 64",
    "features {run} --tokens 512",
    "report {run}",
    "compare {run} --root {root}",
    "list --root {root}",
    "best --root {root}",
    "export {run} --format saelens --out {root}/exported",
    "registry verify {run}",
    "registry rebuild {run}",
    "registry gc --root {root} --yes",
)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "harmed")


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest and its finished run."""
    folder = tmp_path_factory.mktemp("whole")
    return uninterrupted(folder, model, transcoders=ONE, tokens=256 * 8)[:2]


def every_command(manifest: Path, run: Path, tally: Tally, what: str) -> str:
    """Each ends by itself, without a traceback; what they printed."""
    printed = []
    for words in COMMANDS:
        arguments = words.format(manifest=manifest, run=run, root=run.parent).split()
        ended = CliRunner().invoke(cli, arguments)
        clean = ended.exception is None or isinstance(ended.exception, SystemExit)
        right = clean and ended.exit_code in (0, 1, 2, 3) and "Traceback" not in ended.output
        refusals = [line for line in ended.output.splitlines() if "out of the run folder" in line]
        told = refusals[0] if refusals else ""
        tally.add(right, told if right else f"{what}, {words}: {ended.output} {ended.exc_info}")
        printed.append(ended.output)
    return "\n".join(printed)


def test_nothing_is_unpickled(
    whole: tuple[Path, Path], model: Path, tmp_path: Path, tally: Tally
) -> None:
    manifest, run = whole
    harmed = tmp_path / "harmed"
    evil = pickle.dumps(Bomb(harmed))
    torch.save({"a": Bomb(harmed)}, tmp_path / "evil.pt")
    places = [
        *run.glob("transcoders/*/final/*"),
        *run.glob("transcoders/*/checkpoints/*/*"),
        *run.glob("tokens/*"),
        run / "index.sqlite",
        run / "resolved.json",
    ]
    assert len(places) > 15
    for content in (evil, (tmp_path / "evil.pt").read_bytes()):
        for place in sample(places):
            root = tmp_path / "copy"
            shutil.copytree(run, root / "small")
            copied = root / "small" / place.relative_to(run)
            copied.write_bytes(content)
            if "final" not in copied.parts:  # or nothing but it would be read
                shutil.rmtree(next(root.glob("small/transcoders/*/final")))
            try:
                run_here(manifest, root)
                load_suite(root / "small")
            except (MtcError, OSError, ValueError):
                pass
            tally.add(not harmed.exists(), f"{place.name} unpickled" if harmed.exists() else "")
            harmed.unlink(missing_ok=True)
            shutil.rmtree(root)
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    shutil.copy(tmp_path / "evil.pt", folder / "pytorch_model.bin")
    said = ""
    try:
        run_here(write_manifest(tmp_path, folder, transcoders=ONE), tmp_path)
    except MtcError as error:
        said = str(error)
    tally.add("safetensors" in said and not harmed.exists(), said)


def test_links_out_of_a_run_are_not_followed(
    whole: tuple[Path, Path], tmp_path: Path, tally: Tally
) -> None:
    manifest, run = whole
    own = [path for path in run.rglob("*") if not path.is_symlink()]
    folders = [path for path in own if path.is_dir()]
    files = [path for path in own if path.is_file() and "tokens" not in path.parts]
    assert len(folders) > 5 and len(files) > 15
    for number, place in enumerate(sample([*folders, *files, run / "lock.json"])):
        copy = tmp_path / str(number) / "small"
        shutil.copytree(run, copy)
        outside = tmp_path / f"outside-{number}"
        there = copy / place.relative_to(run)
        if there.exists():
            there.rename(outside)
        else:
            outside.write_text("{}")
        there.symlink_to(outside)
        before = contents(outside)
        printed = every_command(manifest, copy, tally, str(place.relative_to(run)))
        tally.add("out of the run folder" in printed, printed)
        same = contents(outside) == before  # a file made anew may have taken the link's place
        tally.add(same, "" if same else f"{place} was changed through a link")
        shutil.rmtree(copy.parent)


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        str(file): (b"" if file.is_dir() else file.read_bytes(), file.lstat().st_mtime_ns)
        for file in files
    }


NAMES = ("..", ".", "../x", "/tmp/x", "a/../../x", "~", "a/b", "a\\b", "")


def test_names_lead_nowhere_else(model: Path, tmp_path: Path, tally: Tally) -> None:
    manifest = write_manifest(tmp_path, model, transcoders=ONE)
    (tmp_path / "root").mkdir()
    sound, before = manifest.read_text(), sorted(tmp_path.rglob("*"))
    for name in NAMES:
        manifest.write_text(sound.replace("name: small", f"name: {json.dumps(name)}"))
        words = ["run", str(manifest), "--root", str(tmp_path / "root"), "--backend", "local"]
        ended = CliRunner().invoke(cli, words)
        right = ended.exit_code == 2 and sorted(tmp_path.rglob("*")) == before
        tally.add(right and ":1: name: " in ended.output, ended.output.replace(str(tmp_path), ""))


CODE = """\
import pathlib
pathlib.Path({harmed!r}).write_text("ran")
from transformers import LlamaConfig, models
class OwnConfig(LlamaConfig):
    model_type = "own-llama"
class LlamaForCausalLM(models.llama.LlamaForCausalLM):  # TransformerLens goes by this name
    config_class = OwnConfig
"""


@pytest.mark.parametrize("trusted", [False, True])
def test_code_of_a_model_runs_only_where_the_manifest_says_so(
    trusted: bool, tmp_path: Path, tally: Tally
) -> None:
    folder, harmed = save_tiny_model(tmp_path / "model", family="llama"), tmp_path / "harmed"
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own-llama",
        "auto_map": {
            "AutoConfig": "own.OwnConfig",
            "AutoModelForCausalLM": "own.LlamaForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(harmed=str(harmed)))
    manifest = write_manifest(tmp_path, folder, transcoders=ONE, tokens=256 * 8)
    flag = f"model.trust_remote_code={str(trusted).lower()}"
    try:
        code, printed = run_here(manifest, tmp_path, flag)
    except MtcError as error:
        code, printed = 2, str(error)
    printed = " ".join(printed.split())
    if trusted:
        right = code == 0 and harmed.exists() and "may do all that you may" in printed
    else:
        right = (
            code == 2
            and not harmed.exists()
            and "unless model.trust_remote_code is true" in printed
        )
    tally.add(right, printed)


TOKEN = "7c" * 32
SECRETS = {
    "HF_TOKEN": "hf_" + "Qz7" * 11,
    "WANDB_API_KEY": "5e" * 20,
    "AWS_SECRET_ACCESS_KEY": "aws" + "K9x" * 12,
    "OPENAI_API_KEY": "sk-" + "Jw4" * 12,
    "RAY_AUTH_TOKEN": TOKEN,
}
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
print("INSIDE", ray.nodes())
"""


def test_through_ray_no_secret_is_written_and_nobody_else_gets_in(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    manifest = write_manifest(tmp_path, model, tokens=256 * 60)
    tracked = ("tracking.wandb=offline", "eval.spliced_tokens=64")
    with adopting(), running(manifest, tmp_path, *tracked, dashboard=True) as command:
        trained = command.run / "transcoders"
        until(lambda: next(trained.glob("*/checkpoints/step-*"), None), "a checkpoint")
        trainer = find(command, "ray::TranscoderTrainer")
        trainer.suspend()  # nothing ends meanwhile
        nobody_else_gets_in(command, tmp_path, tally)
        trainer.resume()
        assert command.exit_code() == 0, command.printed
    assert list(command.run.rglob("*.wandb"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        content = path.read_bytes()
        found = [name for name, secret in SECRETS.items() if secret.encode() in content]
        tally.add(not found, f"{path} holds {found}" if found else "")


def find(command: Command, title: str) -> psutil.Process:
    below = psutil.Process(command.pid).children(recursive=True)
    (found,) = [process for process in below if title in process.cmdline()[0]]
    return found


def nobody_else_gets_in(command: Command, folder: Path, tally: Tally) -> None:
    """Ray listens on loopback alone, and refuses who has no token or another."""
    below = psutil.Process(command.pid).children(recursive=True)
    listening = [
        connection.laddr
        for process in below
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3
    for address in listening:
        right = address.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
        tally.add(right, "" if right else f"listens on {address}")
    head = find(command, "gcs_server")
    (address,) = [one.laddr for one in head.net_connections() if one.status == psutil.CONN_LISTEN]
    for token, welcome in ((None, False), ("0" * 64, False), (TOKEN, True)):
        env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
        env |= {"HOME": str(folder), "RAY_AUTH_MODE": "token" if token else "disabled"}
        env |= {"RAY_AUTH_TOKEN": token} if token else {}
        env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else it takes another address of ours
        words = [sys.executable, "-c", STRANGER, f"127.0.0.1:{address.port}"]
        ended = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
        inside = "INSIDE" in ended.stdout
        right = inside if welcome else not inside and "uthentic" in ended.stderr
        tally.add(right, "" if right else ended.stdout + ended.stderr[-500:])
