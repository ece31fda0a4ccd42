"""A cell's connection to a producer that is another actor. The reference to an unanswered `take` is
the credit: as many as the window has are out at a time.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, ObjectLostError, RayActorError

from mtc_core.producer import Activations
from orchestrator.exchange.line import LineLost
from orchestrator.exchange.transport import Parcel
from orchestrator.ray_backend.plasma import Plasma

POLL_S = 0.1  # how long a cell waits for rows before it looks whether it is asked for anything
PULL_S = 5.0


class RayLine:
    """See Line. `start` counts the producer's processes: a parcel of an earlier one is refused."""

    def __init__(self, producer: Any, start: int, reader: str, device: str) -> None:
        self._producer, self._start, self._reader = producer, start, reader
        self._device, self._transport = device, Plasma()
        self._cursor = 0
        self._asked: dict[int, ray.ObjectRef] = {}
        self._parcels: dict[int, Parcel] = {}

    def ask(self, portion: int, cursor: int) -> None:
        self._cursor = cursor
        self._asked[portion] = self._producer.take.remote(self._reader, portion, cursor)

    def take(self, portion: int) -> Activations | None:
        try:
            parcel = self._parcel(portion, POLL_S)
            if parcel is None:
                return None
            rows = self._opened(parcel)
            del self._parcels[portion]
            self._look_ahead(portion)
            return rows
        except GetTimeoutError:  # another node is slow to send it
            return None
        except ActorUnavailableError:  # maybe it comes back; if not, the driver gives us another
            time.sleep(POLL_S)  # it says so at once, again and again
            self._asked = {asked: self._take(asked) for asked in self._asked}
            return None
        except (RayActorError, ObjectLostError):
            raise LineLost from None

    def leave(self) -> None:
        self._producer.leave.remote(self._reader)

    def _take(self, portion: int) -> ray.ObjectRef:
        return self._producer.take.remote(self._reader, portion, self._cursor)

    def _parcel(self, portion: int, timeout_s: float) -> Parcel | None:
        if portion not in self._parcels:
            ready, _ = ray.wait([self._asked[portion]], timeout=timeout_s)
            if not ready:
                return None
            start, parcel = ray.get(ready[0])
            del self._asked[portion]
            if start != self._start or parcel is None:  # what we were has left, as others see it
                raise LineLost
            self._parcels[portion] = parcel
        return self._parcels[portion]

    def _opened(self, parcel: Parcel) -> Activations:
        contents = ray.get(list(parcel.bundles.values()), timeout=PULL_S)
        opened = (self._transport.open(content, self._device) for content in contents)
        return {name: rows_ND for rows in opened for name, rows_ND in rows.items()}

    def _look_ahead(self, portion: int) -> None:
        """Have what comes next brought to this node meanwhile."""
        later = min((asked for asked in self._asked if asked > portion), default=None)
        if later is not None and (parcel := self._parcel(later, 0)):
            bundles = list(parcel.bundles.values())
            ray.wait(bundles, num_returns=len(bundles), timeout=0)
