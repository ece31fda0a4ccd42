"""`status --watch`: from another process than the run's, until that run has ended or is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.run_folder.lock import started as started_at
from orchestrator.status_file import read_status
from tests.e2e.runs import run_here, write_manifest

COMMAND = [sys.executable, "-c", "from orchestrator.cli import main; main()"]


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


@contextmanager
def at_work(folder: Path, model: Path, tokens: int) -> Iterator[subprocess.Popen]:
    """A run in a process of its own, that trains."""
    manifest = write_manifest(folder, model, tokens=tokens)
    options = ("--root", folder, "--backend", "local")
    with started("run", manifest, *options) as run:
        deadline = time.monotonic() + 60
        while (read_status(folder / "small") or {}).get("phase") != "training":
            assert run.poll() is None and time.monotonic() < deadline, run.communicate()
            time.sleep(0.05)
        yield run


def test_it_shows_steps_as_they_are_made_and_ends_with_the_run(tmp_path: Path, model: Path) -> None:
    with at_work(tmp_path, model, tokens=256 * 800) as run:
        with started("status", tmp_path / "small", "--watch") as other:
            ended = CliRunner().invoke(cli, ["status", f"{tmp_path}/small", "--watch", "--json"])
            assert ended.exit_code == 0
            lines = other.communicate(timeout=60)[0].splitlines()
        run.communicate(timeout=60)
        assert run.returncode == 0
    states = [json.loads(line) for line in ended.stdout.splitlines()]
    steps = [state["step"] for state in states]
    assert steps == sorted(steps) and len(set(steps)) >= 3
    assert {state["state"] for state in states[:-1]} == {"running"}
    assert states[-1]["state"] == "done" and states[-1]["step"] == 800
    assert all(row["state"] == "done" for row in states[-1]["transcoders"])
    # In a pipe it is lines, and then the table.
    assert any(line.startswith("training     step ") for line in lines)
    assert any(": done, step 800/800" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_what_is_measured_after_training_is_seen_too(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict] = []

    def evaluate(run, wanted, listener) -> None:
        listener.progress("splicing", 0.25, 90.0)
        seen.append(read_status(tmp_path / "small") or {})

    monkeypatch.setattr("orchestrator.evaluating.evaluate.evaluate", evaluate)
    code, printed = run_here(write_manifest(tmp_path, model, tokens=256 * 4), tmp_path)
    assert code == 0, printed
    (status,) = seen
    assert (status["state"], status["phase"]) == ("running", "measuring")
    assert status["doing"] == "splicing  25 %  1:30 left" and status["step"] == 4


def test_leaving_leaves_the_run_alone_and_a_killed_one_is_told(tmp_path: Path, model: Path) -> None:
    with at_work(tmp_path, model, tokens=256 * 100_000) as run:
        with started("status", tmp_path / "small", "--watch") as watcher:
            assert watcher.stdout is not None and "training" in watcher.stdout.readline()
            watcher.send_signal(signal.SIGINT)
            _, error = watcher.communicate(timeout=30)
        assert watcher.returncode == 130
        assert error == f"no longer watching; {tmp_path / 'small'} goes on as before\n"
        assert run.poll() is None and (read_status(tmp_path / "small") or {})["state"] == "running"
        with started("status", tmp_path / "small", "--watch") as watcher:
            assert watcher.stdout is not None and "training" in watcher.stdout.readline()
            run.kill()
            run.wait()
            printed, _ = watcher.communicate(timeout=30)
        assert watcher.returncode == 0 and ": killed, step " in printed, printed


def test_a_folder_that_goes_while_it_is_watched_is_named(
    reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(reference[1], tmp_path / "small"))
    alive = {"state": "running", "host": socket.gethostname(), "pid": os.getpid(),
             "process_started": started_at(os.getpid()), "updated": 1.0}  # fmt: skip
    (run / "status.json").write_text(json.dumps(alive))
    monkeypatch.setattr("orchestrator.commands.watching.time.sleep", lambda _: shutil.rmtree(run))
    ended = CliRunner().invoke(cli, ["status", str(run), "--watch"])
    assert ended.exit_code == 2 and f"{run} has been deleted, or moved" in ended.stderr


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_of_a_run_that_nobody_works_on_it_says_how_it_stands(
    reference, options: tuple[str, ...]
) -> None:
    run = reference[1]
    plain = CliRunner().invoke(cli, ["status", str(run), *options])
    watched = CliRunner().invoke(cli, ["status", str(run), "--watch", *options])
    assert watched.exit_code == plain.exit_code == 0
    if options:
        assert json.loads(watched.stdout) == json.loads(plain.stdout)
    else:
        assert watched.stdout == plain.stdout
