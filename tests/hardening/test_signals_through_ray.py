"""A signal in each phase of a run through Ray, as a terminal or `kill` sends it. Phases are told
from outside: by the stack of the trainer, which is stopped meanwhile, by files and by the log."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.stacks import is_inside
from tests.e2e.runs import finals, run_in_child, uninterrupted, write_manifest
from tests.hardening.conftest import Tally, sample
from tests.ray.commands import Command, adopting, running
from tests.ray.harm import freeze_inside, half_written, newest_step, stop, trainer_of, until

pytestmark = pytest.mark.hardening
STEPS = 300  # or its training would be missed
LONGER = {"tokens": 256 * STEPS, "checkpoint_minutes": 0.02}
HEARD_S = 0.3  # the driver has heard a signal after that


def logged(phase: str, run: Path) -> None:
    def is_there() -> bool:
        with suppress(OSError):
            return f" INFO {phase}" in (run / "log.txt").read_text()
        return False

    until(is_there, phase)


def at_work(file: str, function: str, run: Path, after: int = -1) -> int:
    """A trainer in that function, with a checkpoint of that step: its pid. It is stopped."""
    until(lambda: newest_step(run) >= after, f"step {after}")

    def stopped() -> int | None:
        for transcoder in run.glob("transcoders/*"):
            if (pid := trainer_of(transcoder)) and stop(pid):
                if is_inside(pid, file, function):
                    return pid
                let_go(pid)
        return None

    return until(stopped, function)


def let_go(pid: int) -> None:
    with suppress(ProcessLookupError):  # a run that is told to end kills what has not begun
        os.kill(pid, signal.SIGCONT)


def writing(pattern: str, run: Path) -> int:
    return freeze_inside(lambda: [*run.glob(pattern)])[0]


PHASES: dict[str, Callable[[Path], int | None]] = {
    "reading text": partial(logged, "tokens"),
    "loading the model": partial(at_work, "cells/forwarder.py", "load"),
    "dry run": partial(at_work, "cells/rehearsal.py", "rehearse"),
    "training": partial(at_work, "cells/transcoder_run.py", "step"),
    "checkpoint": lambda run: freeze_inside(lambda: half_written(run))[0],
    "calibration": partial(at_work, "mtc_core/held_out.py", "calibrate", after=STEPS),
    "evaluation": partial(at_work, "mtc_core/held_out.py", "test", after=STEPS),
    "saving": partial(writing, "transcoders/*/.final.*.tmp"),
    "splicing": partial(logged, "done"),
}
OVER = "splicing"  # a run may end before it hears a signal that was sent in it


def send(number: int, command: Command, stopped: int | None) -> None:
    if number == signal.SIGINT:
        command.interrupt()  # to the whole process group
    else:
        os.kill(command.pid, number)
    if stopped:
        time.sleep(HEARD_S)
        let_go(stopped)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_through_ray(number: int, model: Path, tmp_path: Path, tally: Tally) -> None:
    """What is left goes on without Ray."""
    _, run, _ = uninterrupted(tmp_path, model, **LONGER)
    for phase in sample(PHASES):
        root = tmp_path / phase.replace(" ", "-")
        root.mkdir()
        manifest = write_manifest(root, model, **LONGER)
        with adopting(), running(manifest, root) as command:
            send(number, command, PHASES[phase](command.run))
            code = command.exit_code()
            command.assert_nothing_is_left()
        again = run_in_child(manifest, root)
        right = code == 128 + number or (phase == OVER and code == 0)
        right = right and again == 0 and finals(root / "small") == finals(run)
        told = f"exit {code}" if right else f"{phase}: exit {code}, {again}, {command.printed}"
        tally.add(right, told)
