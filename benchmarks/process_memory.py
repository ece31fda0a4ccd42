"""Memory of a process and all that it started, while it runs.

PSS (`/proc/PID/smaps_rollup`), which divides a shared page by those who share it: sums of resident
memory count Ray's object store and every shared library once per process. Linux only.

The kernel walks all pages to tell it: 20 ms for a trainer of 1.6 GB, and Ray has twenty processes
beside it. Read twice a second it would cost the measured tool a tenth of a core, and ours more than
one of a single process. So resident memory, which costs nothing, is looked at twice a second, and
PSS when that has grown, or has not been read for a while.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping

import psutil

EVERY_S, AT_LEAST_EVERY_S = 0.5, 10.0
GROWTH = 1.005  # of resident memory, from which on its PSS is read
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


class PeakMemory:
    """Samples a tree of processes until closed. peak_bytes: the largest sum; at_peak: its parts."""

    def __init__(
        self, pid: int, every_s: float = EVERY_S, at_least_every_s: float = AT_LEAST_EVERY_S
    ) -> None:
        self.peak_bytes, self.samples = 0, 0
        self.at_peak: Mapping[str, int] = {}
        self._pid, self._every_s, self._at_least_every_s = pid, every_s, at_least_every_s
        self._resident_bytes, self._read_at = 0.0, 0.0
        self._closed = threading.Event()
        self._seen: dict[int, psutil.Process] = {}
        self._thread = threading.Thread(target=self._sample_until_closed, daemon=True)
        self._thread.start()

    def __enter__(self) -> PeakMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _sample_until_closed(self) -> None:
        while not self._closed.wait(self._every_s if self.samples else 0):
            processes = self._tree()
            resident = sum(resident_bytes(process.pid) for process in processes)
            grown = resident > self._resident_bytes * GROWTH
            if grown or time.monotonic() - self._read_at >= self._at_least_every_s:
                self._resident_bytes = max(resident, self._resident_bytes)
                self._read(processes)
            self.samples += 1

    def _read(self, processes: list[psutil.Process]) -> None:
        self._read_at = time.monotonic()
        parts = {process: pss_bytes(process.pid) for process in processes}
        if sum(parts.values()) > self.peak_bytes:
            self.peak_bytes = sum(parts.values())
            self.at_peak = {f"{one.pid} {_name(one)}": size for one, size in parts.items()}

    def _tree(self) -> list[psutil.Process]:
        """The process and its descendants. Those seen once stay: the children of one that has ended
        belong to init. One look at all processes a sample: a look takes some milliseconds."""
        self._seen |= {process.pid: process for process in tree(self._pid)}
        self._seen = {pid: one for pid, one in self._seen.items() if one.is_running()}
        return list(self._seen.values())


def tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants, as far as they are there."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def resident_bytes(pid: int) -> int:
    """0 of a process that is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def pss_bytes(pid: int) -> int:
    """0 of a process that is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            found = _PSS.search(file.read())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "ended"
