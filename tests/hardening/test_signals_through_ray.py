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
from tests.ray.harm import frozen_inside, half_written, newest_step, stop, trainer_of, until

pytestmark = pytest.mark.hardening
STEPS = 300  # or its training would be missed, and with fewer rows held out what they are for
LONGER = {"tokens": 256 * STEPS, "holdout_tokens": 2**15, "checkpoint_minutes": 0.02}
TRIES = 3  # of a moment that was missed: who looks may have to wait for a core
HEARD_S = 0.3  # the driver has heard a signal after that


class Missed(Exception):
    """A run has ended before the moment was seen."""


Moment = Callable[[Path], int | bool | None]


def logged(phase: str, run: Path) -> bool:
    with suppress(OSError):
        return f" INFO {phase}" in (run / "log.txt").read_text()
    return False


def at_work(file: str, function: str, run: Path, after: int = -1) -> int | None:
    """A trainer in that function, with a checkpoint of that step: its pid. It is stopped."""
    if newest_step(run) < after:
        return None
    for transcoder in run.glob("transcoders/*"):
        if (pid := trainer_of(transcoder)) and stop(pid):
            if is_inside(pid, file, function):
                return pid
            let_go(pid)
    return None


def let_go(pid: int) -> None:
    with suppress(ProcessLookupError):  # a run that is told to end kills what has not begun
        os.kill(pid, signal.SIGCONT)


def writing(files: Callable[[Path], list[Path]], run: Path) -> int | None:
    caught = frozen_inside(files(run))
    return caught and caught[0]


PHASES: dict[str, Moment] = {
    "reading text": partial(logged, "tokens"),
    "loading the model": partial(at_work, "cells/forwarder.py", "load"),
    "dry run": partial(at_work, "cells/rehearsal.py", "rehearse"),
    "training": partial(at_work, "cells/transcoder_run.py", "step"),
    "checkpoint": partial(writing, half_written),
    "calibration": partial(at_work, "mtc_core/held_out.py", "calibrate", after=STEPS),
    "evaluation": partial(at_work, "mtc_core/held_out.py", "test", after=STEPS),
    "saving": partial(writing, lambda run: [*run.glob("transcoders/*/.final.*.tmp")]),
    "splicing": partial(logged, "done"),
}
OVER = "splicing"  # a run may end before it hears a signal that was sent in it


def when(moment: Moment, command: Command) -> int | bool:
    """Wait for it; the process that is stopped in it, or True."""

    def seen() -> int | bool | None:
        if command.ended:
            raise Missed
        return moment(command.run)

    return until(seen, "a moment", limit_s=120)


def send(number: int, command: Command, stopped: int | bool) -> None:
    if number == signal.SIGINT:
        command.interrupt()  # to the whole process group
    else:
        os.kill(command.pid, number)
    if stopped is not True:
        time.sleep(HEARD_S)
        let_go(stopped)


def signalled(number: int, phase: str, model: Path, folder: Path) -> tuple[int, Command, Path]:
    """Its exit code, the command, and the manifest to go on with."""
    for attempt in range(TRIES):
        root = folder / f"{phase.replace(' ', '-')}-{attempt}"
        root.mkdir()
        manifest = write_manifest(root, model, **LONGER)
        with suppress(Missed), adopting(), running(manifest, root) as command:
            send(number, command, when(PHASES[phase], command))
            code = command.exit_code()
            command.assert_nothing_is_left()
            return code, command, manifest
    raise AssertionError(f"{phase}: missed {TRIES} times")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_through_ray(number: int, model: Path, tmp_path: Path, tally: Tally) -> None:
    """What is left goes on without Ray."""
    _, run, _ = uninterrupted(tmp_path, model, **LONGER)
    for phase in sample(PHASES):
        code, command, manifest = signalled(number, phase, model, tmp_path)
        root = command.run.parent
        again = run_in_child(manifest, root)
        right = code == 128 + number or (phase == OVER and code == 0)
        right = right and again == 0 and finals(root / "small") == finals(run)
        told = f"exit {code}" if right else f"{phase}: exit {code}, {again}, {command.printed}"
        tally.add(right, told)
