"""A signal in each phase of a run: what is done is saved, the exit code names the signal, nothing
is left, and the same command continues to the same bits. A second one ends it at once."""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.runs import finals, run_here, run_in_child, write_manifest
from tests.hardening.conftest import Tally, sample

pytestmark = pytest.mark.hardening
PHASES = {
    # what is called in it, and which of the calls is meant
    "reading text": ("mtc_core.tokens.token_writer:TokenWriter._add", 30),
    "loading the model": ("orchestrator.cells.forwarder:load_model", 1),
    "dry run": ("orchestrator.cells.cell:rehearse", 1),
    "training": ("mtc_core.trainer:TranscoderTrainer.step", 9),
    "checkpoint": ("mtc_core.checkpoint:write_json_atomic", 3),
    "calibration": ("orchestrator.cells.transcoder_run:TranscoderRun.calibrate", 2),
    "evaluation": ("orchestrator.cells.transcoder_run:TranscoderRun.test", 2),
    "saving": ("orchestrator.cells.transcoder_run:TranscoderRun.save_final", 1),
    "splicing": ("mtc_core.splice.measure:SpliceMeasurement._chunk", 1),
    "report": ("orchestrator.driver:report_at_the_end", 1),
}
OVER = ("report",)  # in which nothing is left to stop


@dataclass
class SignalIn:
    """Sends signals to its own process where a phase is at work."""

    place: str
    call: int
    number: int
    times: int

    def plant(self) -> None:
        module, _, name = self.place.partition(":")
        owner: Any = importlib.import_module(module)
        *outer, last = name.split(".")
        for part in outer:
            owner = getattr(owner, part)
        original: Callable[..., Any] = getattr(owner, last)
        seen = [0]

        def signalling(*args: Any, **options: Any) -> Any:
            seen[0] += 1
            if seen[0] == self.call:
                for _ in range(self.times):
                    os.kill(os.getpid(), self.number)
                    time.sleep(0.05)
            return original(*args, **options)

        setattr(owner, last, signalling)


@pytest.fixture(scope="module")
def wanted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("wanted")
    code, printed = run_here(write_manifest(folder, model), folder)
    assert code == 0, printed
    return finals(folder / "small")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(
    number: int, times: int, model: Path, tmp_path: Path, wanted: dict[str, bytes], tally: Tally
) -> None:
    for phase in sample(PHASES):
        place, call = PHASES[phase]
        root = tmp_path / phase.replace(" ", "-")
        root.mkdir()
        manifest = write_manifest(root, model)
        code = run_in_child(manifest, root, SignalIn(place, call, number, times))
        ends = list(root.glob("small/invocations/*.end.json"))  # one that ends at once leaves none
        expected = 128 + number if times == 2 or phase not in OVER else 0
        again = run_in_child(manifest, root)
        right = (code, again) == (expected, 0) and finals(root / "small") == wanted
        right = right and bool(ends) == (times == 1 or phase in OVER)
        tally.add(right, f"{phase}: exit {code}, {again}" if not right else f"exit {code}")
