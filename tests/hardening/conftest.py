"""What was done to the product, and what came of it: a table at the end of the tests."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

Case = TypeVar("Case")
# Of all tries, how many are made: continuous integration makes a tenth.
SHARE = float(os.environ.get("MTC_HARDENING", "1"))


def share(tries: int) -> int:
    """How many of so many tries are made."""
    return max(1, round(SHARE * tries))


def sample(cases: Collection[Case]) -> list[Case]:
    """Those of the cases that are tried, in their order."""
    drawn = set(random.sample(range(len(cases)), share(len(cases))))
    return [case for number, case in enumerate(cases) if number in drawn]


TEMPORARY = re.compile(r"/tmp/pytest-of-[^/]+/pytest-\d+/[^/ ]+/")
FAILURES = 20  # that are shown
SHOWN = 110  # characters of what the user saw


@dataclass
class Tally:
    """One kind of trouble: how often tried and survived, and something that it had us say."""

    name: str
    tried: int = 0
    survived: int = 0
    said: str = ""
    failures: list[str] = field(default_factory=list)

    def add(self, survived: bool, said: str = "") -> None:
        self.tried += 1
        self.survived += survived
        if not survived:
            self.failures.append(said)
        if said and (not self.said or not survived):
            self.said = TEMPORARY.sub("", " ".join(said.split()))


TALLIES: list[Tally] = []


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """Of one test; every try must be survived."""
    kept = Tally(request.node.name.removeprefix("test_").replace("_", " "))
    TALLIES.append(kept)
    yield kept
    assert kept.tried, "nothing was tried"
    assert not kept.failures, "\n\n".join(kept.failures[:FAILURES])


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
