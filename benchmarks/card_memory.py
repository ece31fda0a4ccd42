"""Memory of a GPU that its driver says is taken, while a tool trains on it.

`nvidia-smi` tells of the whole card: what it told before is taken off, so nothing else should come
or go meanwhile. What a tool's allocator keeps for later counts, as it does for whoever shares the
card. torch's own figures would be of its tensors in one process alone.
"""

from __future__ import annotations

import os
import subprocess
import threading

EVERY_S, TIMEOUT_S = 0.5, 10.0
MIB = 2**20


class PeakOfCard:
    """Samples a device until closed. peak_bytes: None of a CPU, or where nobody tells."""

    def __init__(self, device: str, every_s: float = EVERY_S) -> None:
        self._before = None if device == "cpu" else used_bytes()
        self._most = self._before or 0
        self._every_s = every_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_closed, daemon=True)
        if self._before is not None:
            self._thread.start()

    def __enter__(self) -> PeakOfCard:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._before is not None:
            self._thread.join()

    @property
    def peak_bytes(self) -> int | None:
        return None if self._before is None else self._most - self._before

    def _sample_until_closed(self) -> None:
        while not self._closed.wait(self._every_s):
            self._most = max(self._most, used_bytes() or 0)


def used_bytes() -> int | None:
    """Of the first GPU that torch would take. None without a driver's nvidia-smi."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    asked = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={first}"]
    try:
        said = subprocess.run(
            ["nvidia-smi", *asked], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        ).stdout
        return int(said) * MIB
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
