"""A cell's connection to a producer that is another actor. The reference to an unanswered `take` is
the credit: as many as the window has are out at a time.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import ray
from ray import exceptions

from mtc_core.producer import Activations
from orchestrator.exchange.line import LineLost
from orchestrator.exchange.transport import Parcel
from orchestrator.ray_backend.plasma import Plasma

LOST_S = 60.0  # how long rows that Ray has lost are asked for: a producer that lives has no others
POLL_S = 0.1  # how long a cell waits for rows before it looks whether it is asked for anything
# For the time being, it may be: a producer that is dead is said to be so when it is asked again.
_UNAVAILABLE = (exceptions.ActorUnavailableError, exceptions.ObjectLostError)
_LOST = (exceptions.RayActorError, exceptions.NodeDiedError, exceptions.OutOfMemoryError)


class RayLine:
    """See Line. `start` counts the producer's processes: a parcel of an earlier one is refused."""

    def __init__(self, producer: Any, start: int, reader: str, device: str) -> None:
        self._producer, self._start, self._reader = producer, start, reader
        self._device, self._transport = device, Plasma()
        self._cursor = 0
        self._asked: dict[int, ray.ObjectRef] = {}
        self._parcels: dict[int, Parcel] = {}
        self._lost_at: float | None = None

    def ask(self, portion: int, cursor: int) -> None:
        self._cursor = cursor
        self._asked[portion] = self._take(portion)

    def take(self, portion: int) -> Activations | None:
        try:
            parcel = self._parcel(portion, POLL_S)
            rows = self._opened(parcel) if parcel else None
        except _UNAVAILABLE as error:
            self._end_patience(error)
            time.sleep(POLL_S)  # it says so at once, again and again
            self._asked = {asked: self._take(asked) for asked in {*self._asked, *self._parcels}}
            self._parcels = {}
            return None
        except _LOST:
            raise LineLost from None
        if rows is not None:
            self._lost_at = None
            del self._parcels[portion]
            self._look_ahead(portion)
        return rows

    def leave(self) -> None:
        self._producer.leave.remote(self._reader)

    def _end_patience(self, error: exceptions.RayError) -> None:
        """Raise it where rows stay lost: the next invocation has them computed anew."""
        if not isinstance(error, exceptions.ObjectLostError):
            return
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        elif now - self._lost_at > LOST_S:
            raise error

    def _take(self, portion: int) -> ray.ObjectRef:
        return self._producer.take.remote(self._reader, portion, self._cursor)

    def _parcel(self, portion: int, timeout_s: float) -> Parcel | None:
        if portion not in self._parcels:
            ready, _ = ray.wait([self._asked[portion]], timeout=timeout_s)
            if not ready:
                return None
            start, parcel = ray.get(ready[0])
            if start != self._start or parcel is None:  # what we were has left, as others see it
                raise LineLost
            del self._asked[portion]
            self._parcels[portion] = parcel
        return self._parcels[portion]

    def _opened(self, parcel: Parcel) -> Activations | None:
        """None while another node is still sending them. A `get` that runs out of time would have
        all of it sent anew (2.60)."""
        bundles = list(parcel.bundles.values())
        ready, _ = ray.wait(bundles, num_returns=len(bundles), timeout=POLL_S)
        if len(ready) < len(bundles):
            return None
        opened = (self._transport.open(content, self._device) for content in ray.get(bundles))
        return {name: rows_ND for rows in opened for name, rows_ND in rows.items()}

    def _look_ahead(self, portion: int) -> None:
        """Have what comes next brought to this node meanwhile. What is wrong with it is told when
        it is taken."""
        later = min((asked for asked in self._asked if asked > portion), default=None)
        if later is None:
            return
        with suppress(exceptions.RayError, LineLost):
            if parcel := self._parcel(later, 0):
                bundles = list(parcel.bundles.values())
                ray.wait(bundles, num_returns=len(bundles), timeout=0)
