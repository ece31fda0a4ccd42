"""Nodes that are about to be taken away: preempted, or drained by whoever runs the cluster.

Ray (2.60) neither moves nor kills anything on such a node, and its bundles stay there until it is
gone: all that can be done is to have saved by then.
"""

from __future__ import annotations

import time

from orchestrator.ray_backend.head import Head

LOOK_S = 3.0
SAVE_S = 15.0  # between two checkpoints of a cell on such a node


class Draining:
    """What Ray's head knows of them, asked every few seconds."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._looked_at = 0.0
        self._nodes: dict[str, float] = {}
        self._saved_at: dict[str, float] = {}

    def look(self) -> dict[str, str]:
        """Nodes that drain: what to say of each, by its id."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._nodes = self._head.draining()
        return {node: _when(deadline_ms) for node, deadline_ms in self._nodes.items()}

    def due(self, cell: str) -> bool:
        """Whether it is time for a cell on such a node to save again; counted from now on."""
        now = time.monotonic()
        if now - self._saved_at.get(cell, -SAVE_S) < SAVE_S:
            return False
        self._saved_at[cell] = now
        return True


def _when(deadline_ms: float) -> str:
    seconds = deadline_ms / 1000 - time.time()
    return f"in {seconds:.0f} s" if deadline_ms and seconds > 0 else "soon"
