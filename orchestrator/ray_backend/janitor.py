"""Waits for the driver's end, however it comes, and ends what is left of the Ray it started.

    python -m orchestrator.ray_backend.janitor FOLDER

Ray's own processes die with a driver that was killed, but not all of them at once: two agents
stay for more than a minute (Ray 2.60). FOLDER is that Ray's own; each of its processes has a log
file open there, or FOLDER in its environment (some write their title over their environment).
The driver holds our standard input open, and may write to it that the folder, with Ray's logs, is
to stay; it has log files open there itself, and is left alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

VARIABLE = "MTC_RAY"
LIMIT_S = 20.0
_KEEP = b"keep"


class Janitor:
    """The driver's side of it. folder: give it to Ray."""

    def __init__(self) -> None:
        # In /tmp, as Ray does: names of sockets in there must stay below 107 bytes.
        base = "/tmp" if os.access("/tmp", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="mtc-ray-", dir=base))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is not for it
        )

    def sweep(self, keep: bool) -> None:
        """End whatever is left, and wait until it is gone. keep: the folder, with its logs."""
        self._process.communicate(_KEEP if keep else b"")


def main(folder: str) -> None:
    spared = {os.getpid(), os.getppid()}
    said = sys.stdin.buffer.read()  # returns when the driver has closed it, or is dead
    deadline = time.monotonic() + LIMIT_S
    while (left := _processes_of(folder, spared)) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.1)
    if said != _KEEP:  # who was killed has told nobody where the logs are
        shutil.rmtree(folder, ignore_errors=True)


def _processes_of(folder: str, spared: set[int]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or somebody else's
            if process.pid not in spared and _belongs(process, folder):
                found.append(process)
    return found


def _belongs(process: psutil.Process, folder: str) -> bool:
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    if process.environ().get(VARIABLE) == folder:
        return True
    return any(file.path.startswith(f"{folder}/") for file in process.open_files())


if __name__ == "__main__":
    main(sys.argv[1])
