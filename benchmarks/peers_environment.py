"""The Python environment of the other tools, which cannot be ours, and what they need to be run in
it: for the benchmark beside them, and for the tests that have them read our exports.

MTC_PEERS names a folder in which environments are kept; both ask for the same one.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("peers-requirements.txt")
MARK = "installed"  # written last; what the environment was made from


class NotInstalled(Exception):
    """The other tools could not be installed."""


def peers_python(folder: Path) -> Path:
    """The Python of an environment below `folder` with exactly the requirements, made if it is not
    there. Raises NotInstalled."""
    wanted = f"{sys.version}\n{REQUIREMENTS.read_text()}"
    environment = folder / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    python, mark = environment / "bin" / "python", environment / MARK
    if not mark.exists():
        _run(sys.executable, "-m", "venv", "--clear", environment)
        pip = (python, "-m", "pip", "install", "--no-compile", "--only-binary", ":all:")
        # torch with its dependencies, which differ by platform; the rest is a closed list.
        torch = next(line for line in REQUIREMENTS.read_text().split() if line[:7] == "torch==")
        _run(*pip, "--constraint", REQUIREMENTS, torch)
        _run(*pip, "--no-deps", "--requirement", REQUIREMENTS)
        mark.write_text(wanted)
    return python


def _run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise NotInstalled(
            f"the other tools cannot be installed from {REQUIREMENTS}: "
            f"{' '.join(map(str, command))} failed with exit code {done.returncode}. They need "
            f"PyPI, 1.5 GB of disk and Python 3.11 or newer. The end of what it said:\n{said}"
        )


def peers_variables(folder: Path, threads: int, device: str = "cpu") -> dict[str, str]:
    """Environment variables for a program of theirs: nothing of our Python, no network, no GPU
    compiler on a CPU, nothing sent, threads that wait as they do by themselves (suite.py has ours
    wait otherwise). folder: for what they would keep in the home folder."""
    of_ours = ("PYTHON", "GOMP_SPINCOUNT")
    ours = {key: value for key, value in os.environ.items() if not key.startswith(of_ours)}
    if device == "cpu":
        ours["SPARSIFY_DISABLE_TRITON"] = "1"
    return ours | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "WANDB_MODE": "disabled",
        "TQDM_DISABLE": "1",
        "OMP_NUM_THREADS": str(threads),
    }


def make_readable(model: Path) -> None:
    """Change a model folder that transformers 5 saved into what transformers 4.57 reads."""
    file = model / "tokenizer_config.json"
    tokenizer = json.loads(file.read_text())
    if tokenizer["tokenizer_class"] == "TokenizersBackend":
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(tokenizer))
    file = model / "config.json"
    config = json.loads(file.read_text())
    if rope := config.pop("rope_parameters", None):  # 4.57 would take its default theta in silence
        config["rope_theta"] = rope["rope_theta"]
    if config["model_type"] == "gpt2":  # TransformerLens 3 reads it
        config["n_ctx"] = config["n_positions"]
    file.write_text(json.dumps(config))
