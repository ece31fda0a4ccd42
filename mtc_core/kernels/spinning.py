"""How long torch's threads wait busily for their next work: a threshold between two costs.

After each operation a thread of libgomp keeps its core for up to some milliseconds. Where the loops
of a step run on threads of their own, those wait for that core: a step took 77 ms instead of 69.
Without any such waiting the many small operations of a forward pass are slower (benchmarks/LOG.md).
"""

from __future__ import annotations

import os

_ROUNDS = "10000"  # about half a millisecond


def spin_briefly() -> None:
    """For this process and those it starts. Only before torch is loaded: libgomp reads it once."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _ROUNDS)
