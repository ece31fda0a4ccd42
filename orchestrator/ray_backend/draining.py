"""Nodes that are about to be taken away: preempted, or drained by whoever runs the cluster.

Ray (2.60) neither moves nor kills anything on such a node, and its bundles stay there until it is
gone: all that can be done is to have saved by then.
"""

from __future__ import annotations

import time

from orchestrator.ray_backend.head import Head

LOOK_S = 3.0
SAVE_S = 15.0  # at least, from a checkpoint of a cell on such a node to the next
SAVE_TIMES = 10.0  # as long as it took, too: a tenth of the time is enough for what may be in vain
LAST_S = 10.0  # before the node goes, and twice as long as one takes, the last is begun


class Draining:
    """What Ray's head knows of them, asked every few seconds, and when cells there are to save."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._looked_at = 0.0
        self._nodes: dict[str, float] = {}
        self._due_at: dict[str, float] = {}
        self._took_s: dict[str, float] = {}
        self._last: set[tuple[str, str]] = set()

    def look(self) -> dict[str, str]:
        """Nodes that drain: what to say of each, by its id."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._nodes = self._head.draining()
        return {node: _when(deadline_ms) for node, deadline_ms in self._nodes.items()}

    def due(self, cell: str, node: str) -> bool:
        """Whether it is time for a cell on such a node to save: asked only while none of its
        checkpoints is under way. Shortly before the node goes it is once more, whenever that was
        last."""
        deadline_ms = self._nodes[node]
        lead_s = LAST_S + 2 * self._took_s.get(cell, 0.0)
        if deadline_ms and _seconds_to(deadline_ms) <= lead_s and (cell, node) not in self._last:
            self._last.add((cell, node))
            return True
        return time.monotonic() >= self._due_at.get(cell, 0.0)

    def saved(self, cell: str, took_s: float) -> None:
        """A checkpoint is there that took so long: the next is due a while from now. A node may be
        drained for hours, and cells there are to train meanwhile."""
        self._took_s[cell] = took_s
        self._due_at[cell] = time.monotonic() + max(SAVE_S, SAVE_TIMES * took_s)


def _when(deadline_ms: float) -> str:
    seconds = _seconds_to(deadline_ms)
    return f"in {seconds:.0f} s" if deadline_ms and seconds > 0 else "soon"


def _seconds_to(deadline_ms: float) -> float:
    return deadline_ms / 1000 - time.time()
