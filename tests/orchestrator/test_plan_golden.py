"""Plans as a user sees them, for hardware that is written down: golden/*.txt.

    python -m tests.orchestrator.test_plan_golden

writes them anew; read the diff before you commit it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden")
COMMANDS = {
    "gpt2-small-1x24GB": "gpt2-small --gpu-memory 24GB",
    "gpt2-medium-expansion-1x24GB": "gpt2-medium-expansion --gpu-memory 24GB",
    "gemma-2-2b-1x24GB": "gemma-2-2b --gpu-memory 24GB",
    "gemma-2-2b-1x141GB": "gemma-2-2b --gpu-memory 141GB",
    "gemma-2-2b-8x80GB": "gemma-2-2b --gpus-per-node 8 --gpu-memory 80GB",
    "gpt2-small-split-2x80GB": (
        "gpt2-small --gpus-per-node 2 --gpu-memory 80GB --set resources.topology=split"
    ),
    "gemma-2-2b-4x8x80GB": "gemma-2-2b --nodes 4 --gpus-per-node 8 --gpu-memory 80GB",
}


def session(name: str) -> str:
    """The command and what it prints."""
    manifest, *options = COMMANDS[name].split()
    path = f"manifests/{manifest}.yaml"
    arguments = ["plan", str(ROOT / path), *options]
    ended = CliRunner(env={"COLUMNS": "120"}).invoke(cli, arguments, catch_exceptions=False)
    lines = [f"$ mtc-orchestrate plan {path} {' '.join(options)}", *ended.stdout.splitlines()]
    assert ended.exit_code == 0, ended.stderr
    return "\n".join(line.rstrip() for line in lines) + "\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_plan_is_the_one_that_was_looked_at(name: str) -> None:
    assert session(name) == (GOLDEN / f"{name}.txt").read_text()


def test_there_is_no_golden_file_too_many() -> None:
    assert {path.stem for path in GOLDEN.glob("*")} == set(COMMANDS)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in COMMANDS:
        (GOLDEN / f"{name}.txt").write_text(session(name))
