"""What was done to the product, and what came of it: a table at the end of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

SHOWN = 110  # characters of what the user saw


@dataclass
class Tally:
    """One kind of trouble: how often tried and survived, and something that it had us say."""

    name: str
    tried: int = 0
    survived: int = 0
    said: str = ""

    def add(self, survived: bool, said: str = "") -> None:
        self.tried += 1
        self.survived += survived
        if said and (not self.said or not survived):
            self.said = " ".join(said.split())


TALLIES: list[Tally] = []


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Of one test; every try must be survived."""
    kept = Tally(request.node.name.removeprefix("test_").replace("_", " "))
    TALLIES.append(kept)
    yield kept
    assert kept.tried, "nothing was tried"
    assert kept.survived == kept.tried, kept.said


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TALLIES:
        return
    wide = max(len(kept.name) for kept in TALLIES)
    terminalreporter.write_line("")
    terminalreporter.write_line(f"{'trouble':<{wide}}  tried  survived  what the user saw")
    for kept in TALLIES:
        said = kept.said if len(kept.said) <= SHOWN else kept.said[: SHOWN - 1] + "…"
        terminalreporter.write_line(
            f"{kept.name:<{wide}}  {kept.tried:5}  {kept.survived:8}  {said}"
        )
