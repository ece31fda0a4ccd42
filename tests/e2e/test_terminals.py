"""Every command on every kind of terminal: narrow ones, without colour, pipes, and readers that
have gone; and as JSON."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from orchestrator.cells.status import TranscoderStatus
from orchestrator.cli import cli
from orchestrator.snapshot import Snapshot
from orchestrator.view import LiveView
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import uninterrupted

ID = re.compile(r"L\d\d\.resid_mid-L\d\d\.mlp_out-[0-9a-f]{8}")
# {run}: a finished run; {manifest}: its manifest; {id}: its first transcoder.
TABLES = {
    "plan": "plan {manifest} --root {root}",
    "run": "run {manifest} --root {root} --backend local",
    "status": "status {run}",
    "list": "list --root {root}",
    "best": "best --root {root}",
    "compare": "compare {run} --root {root}",
    "metrics": "metrics {run}",
    "metrics of one": "metrics {run} {id}",
    "eval": "eval {run} --tokens 64",
    "report": "report {run}",
    "features": "features {run} --tokens 512",
    "export": "export {run} --format saelens --out {root}/exported",
    "registry verify": "registry verify {run}",
    "registry gc": "registry gc --root {root}",
}
# Rows that begin with an id, in all tables of a command.
ROWS = {
    "plan": 2,
    "run": 4,
    "status": 2,
    "best": 2,
    "compare": 2,
    "metrics": 4,
    "eval": 6,
    "features": 2,
}
FOLDED = {*ROWS, "list", "metrics of one"} - {"run"}
JSON_ROWS = {
    "registry verify": "faults",
    "registry gc": "rubbish",
    "eval": "splice",
    "report": "runs",
}
ELSEWHERE = {"push"}  # it needs a hub: test_share.py
OTHERS = {
    "init": "init --out -",
    "validate": "validate {manifest}",
    "registry rebuild": "registry rebuild {run}",
    "grafana": "grafana",
}
ALL = TABLES | OTHERS


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("shown")
    model = save_tiny_model(folder / "model", family="llama", n_layers=2)
    pairs = "  - {layers: 0-1, source: resid_mid, target: mlp_out}"
    manifest, run, _ = uninterrupted(folder, model, transcoders=pairs, tokens=256 * 8)
    (first, _) = sorted(path.name for path in (run / "transcoders").iterdir())
    return {"manifest": str(manifest), "root": str(folder), "run": str(run), "id": first}


def call(name: str, values: dict[str, str], *options: str, **environment: str) -> Result:
    arguments = [word.format(**values) for word in ALL[name].split()]
    return CliRunner(env=environment).invoke(cli, [*arguments, *options])


def commands(group: click.Group, before: str = "") -> list[str]:
    found: list[str] = []
    for name, command in group.commands.items():
        inner = isinstance(command, click.Group)
        found += commands(command, f"{name} ") if inner else [f"{before}{name}"]
    return found


def test_every_command_is_tried_here_and_every_table_has_json() -> None:
    assert set(commands(cli)) == {name.removesuffix(" of one") for name in ALL} | ELSEWHERE
    for name in set(commands(cli)) - ELSEWHERE:
        command: click.Command = cli
        for word in name.split():
            assert isinstance(command, click.Group)
            command = command.commands[word]
        assert any("--json" in option.opts for option in command.params) == (name in TABLES)


@pytest.mark.parametrize("name", commands(cli))
def test_every_command_has_help_at_any_width(name: str) -> None:
    for columns in ("40", "80"):
        shown = CliRunner(env={"COLUMNS": columns}).invoke(cli, [*name.split(), "--help"])
        assert shown.exit_code == 0 and shown.stdout.startswith(f"Usage: cli {name}")
        assert "Show this message and exit" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("name", ALL)
def test_at_40_columns_nothing_is_cut(name: str, values: dict[str, str]) -> None:
    ended = call(name, values, COLUMNS="40")
    assert ended.exit_code == 0, ended.output
    wide = call(name, values, COLUMNS="300")
    assert set(ID.findall(ended.stdout)) == set(ID.findall(wide.stdout))
    if name in FOLDED:
        # Paths are not ours to fold.
        lines = [x.rstrip() for x in ended.stdout.splitlines() if values["root"] not in x]
        assert max(map(len, lines)) <= 40, lines
    assert "\x1b" not in ended.stdout and "…" not in ended.stdout


@pytest.mark.parametrize("name", TABLES)
def test_in_a_pipe_a_row_is_a_line(name: str, values: dict[str, str]) -> None:
    shown = call(name, values).stdout.splitlines()
    rows = [line for line in shown if ID.match(line)]
    assert len(rows) == ROWS.get(name, 0)
    assert all(len(line.split()) > 4 for line in rows)


@pytest.mark.parametrize("name", TABLES)
def test_json_is_all_that_stands_on_standard_output(name: str, values: dict[str, str]) -> None:
    ended = call(name, values, "--json", FORCE_COLOR="1", TERM="xterm-256color", COLUMNS="40")
    assert ended.exit_code == 0, ended.output
    parsed = json.loads(ended.stdout)
    assert isinstance(parsed, list) or JSON_ROWS.get(name, "transcoders") in parsed
    if name == "run":
        assert parsed["exit_code"] == 0 and len(parsed["transcoders"]) == 2
        assert "nothing left to train" in ended.stderr


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")


@pytest.mark.parametrize("name", ALL)
def test_no_color_holds_where_colour_is_forced(name: str, values: dict[str, str]) -> None:
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    # A plan that does not fit is the one thing that is coloured.
    options = ("--gpu-memory", "1MB", "--set", "resources.device=auto") if name == "plan" else ()
    coloured = call(name, values, *options, **forced).stdout
    assert bool(COLOUR.search(coloured)) == (name == "plan")
    assert not COLOUR.search(call(name, values, *options, **forced, NO_COLOR="1").stdout)


@pytest.mark.parametrize("name", [name for name in ALL if name != "run"])
def test_a_reader_that_has_gone_sees_no_traceback(name: str, values: dict[str, str]) -> None:
    arguments = [word.format(**values) for word in ALL[name].split()]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", "from orchestrator.cli import main; main()", *arguments],
        cwd=Path(__file__).parents[2],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == ""
    assert command.returncode == 141


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_live_table_fits_and_leaves_out_what_matters_least(width: int) -> None:
    rows = tuple(
        TranscoderStatus(
            id=f"L{layer:02d}.resid_mid-L{layer:02d}.mlp_out-3f2a91c0", state="training",
            step=12_000, saved_step=0, fvu=0.25, l0=64.1, dead_share=0.031,
        )
        for layer in range(40)
    )  # fmt: skip
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=20, color_system=None)
    view = LiveView(console, {})
    view.show(Snapshot(100_000, "training", step=12_000, transcoders=rows))
    view._live.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    view.close()
    lines = [line for line in shown.splitlines() if line.startswith("L")]
    assert len(lines) >= 14 and max(len(line.rstrip()) for line in lines) <= width
    assert all("0.250" in line and "mlp_out" in line for line in lines)
    assert ("3f2a91c0" in lines[0], "64.1" in lines[0]) == (width >= 60, width >= 80)
    assert f"and {40 - len(lines)} more" in shown and "…" not in shown
