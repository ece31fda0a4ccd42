"""A source that breaks off is asked again, after longer and longer waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mtc_core.errors import NotOpened, ReadingStopped

WAITS_S = (1, 2, 4, 8, 16, 32)  # a minute; `datasets` and the Hub's client have tried before
SLICE_S = 0.5  # of a wait, after which who waits may be interrupted

Got = TypeVar("Got")


def patiently(
    read: Callable[[], Got], again: Callable[[], None], tell: Callable[[str], None]
) -> Got:
    """What `read` returns, tried once more after each wait. `again` puts it where it was; `tell` is
    called while waiting, and may raise. Raises ReadingStopped, as the first try did, when all tries
    are used up, and any other error at once."""
    try:
        return read()
    except ReadingStopped as error:
        first = error
    for wait in WAITS_S:
        _wait(wait, f"{first}; trying again", tell)
        again()
        try:
            return read()
        except (ReadingStopped, NotOpened):  # what opened before will open again
            continue
    raise first


def _wait(seconds: float, why: str, tell: Callable[[str], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tell(f"{why} in {left:.0f} s")
        time.sleep(min(SLICE_S, left))
