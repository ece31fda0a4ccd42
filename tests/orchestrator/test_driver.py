"""What the driver does with what a backend tells it. The backend is scripted, and there is neither
a run folder nor a screen: what those do is in tests/e2e."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import driver
from orchestrator.cells.status import CellLost, CellStatus, Event
from orchestrator.interrupts import Interrupt, Interrupted
from orchestrator.suite import Suite

CELL, OTHER = "trainer-0[L00-L01]", "trainer-1[L02-L03]"


class Scripted:
    """A backend that does one thing after another, whatever it is asked. left: heard at its end."""

    trains_here = False

    def __init__(self, *rounds: Callable[[], list[Event]], left: list[Event]) -> None:
        self._rounds, self._left = list(rounds), left
        self.replaced: list[str] = []

    def start(self, *given: object) -> list[str]:
        return []

    def wait(self) -> list[Event]:
        return self._rounds.pop(0)()

    def replace(self, name: str) -> None:
        self.replaced.append(name)

    def stop(self) -> list[Event]:
        return self._left


class Listener:
    """An audience that only remembers."""

    def __init__(self) -> None:
        cells = [CellStatus(name, "training", 1, 32) for name in (CELL, OTHER)]
        self.suite = Suite(100, cells, ["producer-0"])
        self.witness = Path("witness")
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)

    warn = say

    def hear(self, status: object) -> None:
        pass

    def pause(self) -> None:
        pass


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(driver, "cell_jobs", lambda *given: [])
    monkeypatch.setattr(driver, "producer_jobs", lambda *given: [])
    written = SimpleNamespace(schedule=SimpleNamespace(reading=""))
    monkeypatch.setattr(driver, "write_tokens", lambda *given: written)
    named = SimpleNamespace(path=Path("runs/x"))
    plan, manifest = SimpleNamespace(notes=[]), SimpleNamespace(name="x")
    return SimpleNamespace(folder=named, ids=[1], unfinished=[1], plan=plan, manifest=manifest)


def end_of(run: Any, interrupt: Interrupt, backend: Any, audience: Any) -> str:
    with pytest.raises(Interrupted) as end:
        driver._train(run, backend, audience, interrupt, Flag())
    return str(end.value)


def test_a_cell_that_dies_of_what_ends_the_run_is_not_told_as_saved(run):
    """A signal for all of a control group ends its trainers, too, and both are heard of at once."""
    interrupt, audience = Interrupt(), Listener()

    def both() -> list[Event]:
        interrupt.note(signal.SIGTERM)
        return [CellLost(CELL, "crash", "it was killed"), CellLost("producer-0", "crash", "so")]

    backend = Scripted(both, left=[CellLost(OTHER, "crash", "it was killed, too")])
    end = end_of(run, interrupt, backend, audience)
    assert end == f"{CELL}, {OTHER} had died, and go on from the last checkpoint"
    assert f"{CELL} died: it was killed" in audience.told
    assert not backend.replaced


def test_a_producer_has_nothing_to_save(run):
    interrupt = Interrupt()

    def both() -> list[Event]:
        interrupt.note(signal.SIGINT)
        return [CellLost("producer-0", "crash", "it was killed")]

    assert end_of(run, interrupt, Scripted(both, left=[]), Listener()) == "everything is saved"


def test_a_cell_that_was_replaced_before_the_signal_was_told_then(run):
    interrupt, audience = Interrupt(), Listener()

    def signalled() -> list[Event]:
        interrupt.note(signal.SIGINT)
        return []

    lost = CellLost(CELL, "crash", "it was killed")
    backend = Scripted(lambda: [lost], signalled, left=[])
    assert end_of(run, interrupt, backend, audience) == "everything is saved"
    assert backend.replaced == [CELL]
    assert any(f"{CELL} died" in text and "last checkpoint" in text for text in audience.told)
