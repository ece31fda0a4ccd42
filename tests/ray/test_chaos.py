"""The real command, ended at any moment and in every way. The same command then goes on to the same
bits, and of the one before nothing runs any more.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.runs import finals, run_here, write_manifest
from tests.ray.commands import Command, adopting, running
from tests.ray.harm import freeze_inside, half_written, newest_step, steps_on, trainer_of, until

pytestmark = pytest.mark.chaos
TRAINING_S = 12.0


@pytest.fixture(autouse=True)
def adopted():
    with adopting():
        yield


@pytest.fixture(scope="module")
def long(model, longer, tmp_path_factory):
    """An uninterrupted run without Ray, on this machine of about TRAINING_S: manifest, run folder,
    steps. A signal is heard by a trainer after two seconds at most, and three must fit in."""
    folder = tmp_path_factory.mktemp("long")
    ended = json.loads((longer[1] / "invocations" / "0001.end.json").read_text())
    trained_s = sum(ended["seconds"][stage] for stage in ("forward", "train", "checkpoint"))
    steps = round(ended["step"] / trained_s * TRAINING_S)
    manifest = write_manifest(folder, model, tokens=256 * steps)
    with manifest.open("a") as file:
        file.write("tracking: {wandb: offline}\n")
    rarely = "resources.checkpoint_minutes=60"
    code, printed = run_here(manifest, folder, "tracking.wandb=off", rarely)
    assert code == 0, printed
    return manifest, folder / "small", steps


def while_ray_starts(command: Command, rng: random.Random) -> None:
    time.sleep(6 * rng.random())


def while_tokens_are_written(command: Command, rng: random.Random) -> None:
    tokens = command.run / "tokens"
    until((tokens / "store.json").exists, "tokens")
    time.sleep(rng.random() / 2)


def after_some_steps(command: Command, rng: random.Random) -> None:
    steps_on(command.run, rng.randint(1, 60))


def inside_a_checkpoint(command: Command, rng: random.Random) -> None:
    """Its trainer is stopped there, so that it cannot finish before it is ended, too."""
    freeze_inside(lambda: half_written(command.run))


def inside_a_registration(command: Command, rng: random.Random) -> None:
    pid, _ = freeze_inside(lambda: list(command.run.glob(".index.sqlite.*.tmp")))
    assert pid == command.pid


def test_a_driver_killed_at_five_random_moments_leaves_no_trace(long, tmp_path):
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    late = [after_some_steps, inside_a_checkpoint, inside_a_registration]
    rng.shuffle(late)
    for moment in (while_ray_starts, while_tokens_are_written, *late):
        with running(long[0], tmp_path) as command:
            moment(command, rng)
            os.kill(command.pid, signal.SIGKILL)
            assert command.exit_code() == -signal.SIGKILL, f"{moment}, seed {seed}"
            command.assert_nothing_is_left()
        if moment is inside_a_checkpoint:
            assert half_written(command.run), seed
        if moment is inside_a_registration:
            assert list(command.run.glob(".index.sqlite.*.tmp")), seed
    assert -1 < newest_step(tmp_path / "small") < long[2], seed
    with running(long[0], tmp_path) as command:
        folder = command.ray_folder()
        assert command.exit_code() == 0, f"seed {seed}: {command.printed}"
        command.assert_nothing_is_left(limit_s=1)
        assert not folder.exists()
    assert not half_written(tmp_path / "small")
    assert finals(tmp_path / "small") == finals(long[1]), f"seed {seed}"


def test_signals_and_a_mistake_end_everything_and_the_same_command_goes_on(long, model, tmp_path):
    seed = random.randrange(10**6)
    rng = random.Random(seed)

    def interrupted(command: Command) -> int:
        after_some_steps(command, rng)
        command.interrupt()
        return command.exit_code()

    def mistaken(command: Command) -> int:
        return command.exit_code()

    def terminated_early(command: Command) -> int:
        while_ray_starts(command, rng)
        os.kill(command.pid, signal.SIGTERM)
        return command.exit_code()

    def terminated(command: Command) -> int:
        after_some_steps(command, rng)
        os.kill(command.pid, signal.SIGTERM)
        return command.exit_code()

    def interrupted_twice(command: Command) -> int:
        """The first would wait long: the trainer that is to save its state has been stopped."""
        after_some_steps(command, rng)
        os.kill(trainer_of(next(command.run.glob("transcoders/*"))), signal.SIGSTOP)
        command.interrupt()
        until(lambda: "press Ctrl-C again" in command.printed, "an answer")
        time.sleep(rng.random())
        command.interrupt()
        return command.exit_code(limit_s=2)

    def done(command: Command) -> int:
        return command.exit_code()

    def told(act: Callable[[Command], int]) -> tuple[int, str]:
        with running(long[0], tmp_path) as command:
            code = act(command)
            command.assert_nothing_is_left()
            return code, command.printed

    code, printed = told(terminated_early)
    assert code == 128 + signal.SIGTERM and "interrupted: everything is saved" in printed, seed
    code, printed = told(interrupted)
    assert code == 128 + signal.SIGINT and "interrupted: everything is saved" in printed, seed
    with altered(model / "model.safetensors"):
        code, printed = told(mistaken)
    assert code == 2 and "have changed since the run began" in printed, printed
    assert "Traceback" not in printed and "ray::" not in printed
    code, printed = told(terminated)
    assert code == 128 + signal.SIGTERM and "interrupted: everything is saved" in printed, seed
    code, printed = told(interrupted_twice)
    assert code == 128 + signal.SIGINT and "everything is saved" not in printed, seed
    assert -1 < newest_step(tmp_path / "small") < long[2], seed
    code, printed = told(done)
    assert code == 0, printed
    assert finals(tmp_path / "small") == finals(long[1]), f"seed {seed}"


@contextmanager
def altered(path: Path) -> Iterator[None]:
    """The last byte of a file is another inside."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        yield
    finally:
        path.write_bytes(content)
