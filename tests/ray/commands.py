"""The real command as a process of its own, and everything that it starts: whoever is orphaned
becomes our child (Linux: PR_SET_CHILD_SUBREAPER), so that nothing can be left without being seen.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.ray.harm import until

GONE_S = 30.0  # what a killed driver leaves is gone within
_PR_SET_CHILD_SUBREAPER = 36
_SHARED = Path("/dev/shm")


@contextmanager
def adopting() -> Iterator[None]:
    """Orphans of our children become ours."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Command:
    """`mtc-orchestrate run` on a Ray of its own, in its own process group, as in a terminal."""

    def __init__(
        self, manifest: Path, root: Path, *overrides: str, dashboard: bool = False
    ) -> None:
        self.run = root / "small"
        self._before = {process.pid for process in _below_us()}
        self._shared = set(os.listdir(_SHARED))
        self._output = root / "output.txt"
        program = Path(sys.executable).parent / "mtc-orchestrate"
        options = [f"--root={root}", "--backend=ray", *["--no-dashboard"] * (not dashboard)]
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [program, "run", manifest, *options, *(f"--set={words}" for words in overrides)],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=root,
                start_new_session=True,
                env={**os.environ, "COLUMNS": "160"},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def printed(self) -> str:
        return self._output.read_text()

    def ray_folder(self) -> Path:
        """Of the Ray that it has started; the janitor knows it from the beginning."""
        return until(self._folder, "a janitor")

    def interrupt(self) -> None:
        """As Ctrl-C in a terminal does: to everybody in its process group."""
        os.killpg(self.pid, signal.SIGINT)

    def exit_code(self, limit_s: float = 150.0) -> int:
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {limit_s:.0f} s: {self.printed}") from None

    def assert_nothing_is_left(self, limit_s: float = GONE_S) -> None:
        """Once it has ended: no process, no file in shared memory."""
        deadline = time.monotonic() + limit_s
        while left := [*self._processes(), *self._files()]:
            assert time.monotonic() < deadline, f"left after {limit_s:.0f} s: {left}"
            time.sleep(0.1)

    def end(self) -> None:
        """For a test that failed: kill it and all that it started."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        while left := self._processes():
            for process in left:
                process.kill()
            time.sleep(0.1)

    def _processes(self) -> list[psutil.Process]:
        """Those alive; the dead ones are laid to rest, as `init` would do it."""
        alive = []
        for process in _below_us():
            if process.pid in self._before | {self.pid}:
                continue
            with suppress(psutil.NoSuchProcess, ChildProcessError):
                if process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
                elif process.ppid() == os.getpid():
                    os.waitpid(process.pid, os.WNOHANG)
        return alive

    def _files(self) -> set[str]:
        return set(os.listdir(_SHARED)) - self._shared

    def _folder(self) -> Path | None:
        for process in self._processes():
            with suppress(psutil.Error):
                if "orchestrator.ray_backend.janitor" in (words := process.cmdline()):
                    return Path(words[-1])
        return None


def _below_us() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@contextmanager
def running(
    manifest: Path, root: Path, *overrides: str, dashboard: bool = False
) -> Iterator[Command]:
    """Start it; whatever is left of it and its Ray's folder, if the test leaves any, go."""
    command, folder = Command(manifest, root, *overrides, dashboard=dashboard), None
    try:
        folder = command.ray_folder()
        yield command
    finally:
        command.end()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
