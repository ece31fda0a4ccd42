"""A process that dies just before one of its system calls, as a power cut or a SIGKILL ends it."""

import os
import signal
from collections.abc import Callable, Sequence


def die_before(n: int, calls: Sequence[str]) -> Callable:
    """Have the nth of these functions of `os` never happen; what hooks others into the count."""
    left = iter(range(n))

    def hooked(call: Callable) -> Callable:
        def run(*args, **kwargs):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return run

    for name in calls:
        setattr(os, name, hooked(getattr(os, name)))
    return hooked
