"""`validate` and `plan` as a user meets them: output, exit codes, what they load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import Commands, cli
from tests.orchestrator.manifests import write_manifest

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "manifests" / "quickstart.yaml")
MAIN = "from orchestrator.cli import main; main()"
HEAVY = ("torch", "ray", "transformers", "datasets")


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(cli, arguments)


def spawn(*arguments: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # Unbuffered, Python drops the rest of a partial write without an error.
    environment.pop("PYTHONUNBUFFERED", None)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules that a command has loaded when it ends."""
    code = (
        "import sys\nfrom orchestrator.cli import cli\n"
        f"try: cli({list(arguments)!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    out, err = spawn("-c", code).communicate(timeout=60)
    assert "LOADED" in out, err
    return set(out.rpartition("LOADED")[2].split())


def test_validate_says_that_all_is_well() -> None:
    result = call("validate", QUICKSTART)
    assert (result.exit_code, result.stdout) == (0, f"{QUICKSTART}: valid\n")


def test_validate_lists_what_it_could_not_check(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, {2: "model: {name: nobody/nothing}"})
    result = call("validate", str(path))
    assert result.exit_code == 0
    assert "not checked: transcoders: whether nobody/nothing has these layers and sites\n" in (
        result.stdout
    )


def test_mistakes_go_to_stderr_all_at_once_with_exit_2(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, {2: "model: {nam: gpt2}", 4: "train: {tokens: many}"})
    for command in ("validate", "plan"):
        result = call(command, str(path))
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.splitlines() == [
            f"{path}:2: model.name: is missing; add it, such as name: gpt2",
            f'{path}:2: model.nam: unknown key; did you mean "name"?',
            f"{path}:4: train.tokens: must be a whole number such as 8192, 1e8 or 100M, "
            'found "many"',
        ]


def test_a_missing_file_is_one_line_with_exit_2() -> None:
    result = call("validate", "no/such.yaml")
    assert (result.exit_code, result.stderr) == (
        2,
        "no/such.yaml: there is no such file; `mtc-orchestrate init` writes one\n",
    )


def test_set_is_taken_by_both_commands() -> None:
    bad = call("validate", QUICKSTART, "--set", "train.tokens=1")
    assert bad.exit_code == 2
    assert bad.stderr.startswith("--set train.tokens=1: train.tokens: 1 is less than one step")
    good = call("plan", QUICKSTART, "--set", "train.tokens=1M", "--json")
    assert json.loads(good.stdout)["schedule"]["steps"] == 976


def test_plan_prints_json_for_machines(tmp_path: Path) -> None:
    plan = json.loads(call("plan", QUICKSTART, "--json", "--root", str(tmp_path)).stdout)
    assert plan["name"] == "quickstart"
    assert len(plan["transcoders"]) == 4
    assert plan["cells"][0]["name"] == "trainer-0[L00-L03]"
    assert plan["shortages"] == []


def test_plan_shows_a_line_for_each_of_several_cells() -> None:
    lines = call("plan", QUICKSTART, "--set", "resources.cells=3", COLUMNS="120").stdout.split("\n")
    shown = [line for line in lines if line.startswith("trainer-")]
    assert [line.partition(":")[0] for line in shown] == [
        "trainer-0[L00]",
        "trainer-1[L01-L02]",
        "trainer-2[L03]",
    ]
    assert "2 transcoders, 3 of 30 blocks, 33.0 MFLOP/token (95% of the largest)" in shown[1]
    assert "1 transcoder, 4 of 30 blocks, 35.0 MFLOP/token (100% of the largest)" in shown[2]
    forward = "forward of 16 contexts: one per cell, 59.0 MFLOP/token"
    assert sum(line.startswith(forward) for line in lines) == 1


@pytest.mark.parametrize("cells", ["1", "3"])
@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_plan_keeps_ids_whole_and_lines_within_the_terminal(columns: str, cells: str) -> None:
    result = call("plan", QUICKSTART, "--set", f"resources.cells={cells}", COLUMNS=columns)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert max(map(len, lines)) <= int(columns)
    assert "\x1b" not in result.stdout
    assert result.stdout.isascii()
    assert sum("L02.resid_mid-L02.mlp_out-" in line for line in lines) == 1


def test_no_color_is_respected_even_where_colour_is_forced() -> None:
    assert "\x1b[1" in call("plan", QUICKSTART, FORCE_COLOR="1", TERM="xterm-256color").stdout
    too_big = ("--set", "train.batch_tokens=100k", "--set", "train.block_batches=100k")
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    enough = ("--set", "train.tokens=1B")
    coloured = call("plan", QUICKSTART, *too_big, *enough, **forced)
    plain = call("plan", QUICKSTART, *too_big, *enough, **forced, NO_COLOR="1")
    assert "\x1b[1;31m" in coloured.stdout
    assert "31m" not in plain.stdout


def test_a_plan_that_does_not_fit_is_shown_with_the_key_to_change() -> None:
    big = ("--set", "train.block_batches=10M", "--set", "train.tokens=100B")
    result = call("plan", QUICKSTART, *big)
    assert result.exit_code == 0
    assert "not enough memory on cpu" in result.stdout
    assert "lower train.block_batches" in " ".join(result.stdout.split())


def test_validate_loads_nothing_heavy() -> None:
    assert not loaded_by("validate", QUICKSTART) & {*HEAVY, "numpy", "rich"}


def test_plan_loads_no_torch() -> None:
    assert not loaded_by("plan", QUICKSTART) & {*HEAVY, "numpy"}


def fastest(*arguments: str) -> float:
    """Seconds of the best of five: what the command takes when nothing else runs."""
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        with spawn("-c", MAIN, *arguments) as command:
            command.communicate(timeout=60)
        taken.append(time.perf_counter() - began)
        assert command.returncode == 0
    return min(taken)


def test_validate_takes_less_than_half_a_second_and_plan_less_than_one_and_a_half() -> None:
    for manifest in ("gpt2-small", "gemma-2-2b"):
        path = f"manifests/{manifest}.yaml"
        assert fastest("validate", path) < 0.5
        assert fastest("plan", path) < 1.5


def test_help_loads_neither_the_schema_nor_anything_heavy() -> None:
    assert not loaded_by("--help") & {*HEAVY, "numpy", "pydantic", "yaml", "rich"}


def test_every_command_and_option_explains_itself() -> None:
    for name, command in cli.commands.items():
        result = call(name, "--help")
        assert result.exit_code == 0
        assert command.help
        options = [p for p in command.params if isinstance(p, click.Option)]
        assert all(option.help for option in options), name


def test_a_reader_that_leaves_early_sees_no_traceback(tmp_path: Path) -> None:
    entries = "\n".join(
        f"  - {{layers: all, source: resid_mid, target: mlp_out, seed: {seed}}}"
        for seed in range(100)
    )
    path = write_manifest(tmp_path, {7: entries})
    for extra in ([], ["--json"]):
        with spawn("-c", MAIN, "plan", str(path), *extra) as command:
            assert command.stdout is not None and command.stderr is not None
            command.stdout.readline()
            command.stdout.close()
            assert command.stderr.read() == ""
        assert command.returncode == 141


def test_a_home_that_no_shell_has_put_in_is_found(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    result = call("list", "--root=~/runs", HOME=str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, f"no runs under {tmp_path}/runs\n")


def test_a_model_that_cannot_be_had_is_told_with_its_line(tmp_path: Path) -> None:
    manifest = str(write_manifest(tmp_path, {2: "model: {name: nobody/nothing}"}))
    for command in (["plan", manifest], ["run", manifest, "--root", str(tmp_path)]):
        result = call(*command, HF_HUB_OFFLINE="1")
        assert result.exit_code == 2
        told = f"{manifest}:2: model.name: model 'nobody/nothing': "
        assert result.stderr.startswith(told), result.stderr


@click.group(cls=Commands)
def broken() -> None:
    """Commands that end badly."""


@broken.command()
def bug() -> None:
    raise ZeroDivisionError("ours")


@broken.command()
def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_bug_of_ours_keeps_its_traceback_and_exits_3() -> None:
    result = CliRunner().invoke(broken, ["bug"])
    assert result.exit_code == 3
    assert "ZeroDivisionError: ours" in result.stderr
    assert result.stderr.endswith("this is a bug of mtc-orchestrate, not of your manifest; "
                                  "please report it\n")  # fmt: skip


def test_an_interrupt_exits_130_and_bad_usage_2() -> None:
    assert CliRunner().invoke(broken, ["interrupt"]).exit_code == 130
    assert CliRunner().invoke(broken, ["nothing"]).exit_code == 2


@pytest.mark.parametrize("words", [
    ("validate", QUICKSTART, "--set", ""), ("plan", QUICKSTART, "--root", " "),
    ("init", "--data", "", "--out", "-"), ("status", ""), ("list", "--where", ""),
    ("run", QUICKSTART, "--address", ""), ("eval", "x", "--text", ""),
])  # fmt: skip
def test_a_blank_argument_is_no_default(words: tuple[str, ...]) -> None:
    """In a script, a variable that was not set."""
    ended = call(*words)
    assert ended.exit_code == 2 and "is blank" in ended.stderr, ended.output


ODD = ["\x9b2J", "\x7f", "\u202e", "\u2066", "\x1b[2J"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("key", ["data.path", "model.name", "init_from"])
def test_no_terminal_obeys_what_a_manifest_of_a_stranger_holds(
    tmp_path: Path, key: str, odd: str
) -> None:
    ended = call("validate", str(write_manifest(tmp_path)), "--set", f"{key}=a{odd}b")
    assert ended.exit_code == 2 and odd[0] not in ended.output
    ended = call("plan", str(tmp_path / f"a{odd}b.yaml"))
    assert ended.exit_code == 2 and odd[0] not in ended.output


def test_an_address_with_a_password_is_no_text_and_is_not_repeated(tmp_path: Path) -> None:
    address = "https://me:hf_abcdefghijklmnopqrstuv@host/text.txt"
    ended = call("validate", str(write_manifest(tmp_path)), "--set", f"data.path={address}")
    assert ended.exit_code == 2 and "is an address, which nothing here reads" in ended.stderr
    assert "hf_abc" not in ended.output and "me:" not in ended.output
