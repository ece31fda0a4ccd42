"""The run's own log file: what happened, with times; appended to by every invocation."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator.run_folder.disk_errors import disk_errors

VERSIONS = ("mtc-orchestrator", "torch", "transformers", "ray")
_log = logging.getLogger("mtc")


class _QuietFileHandler(logging.FileHandler):
    """A log that cannot be written, on a full disk say, must neither stop a run nor garble the
    terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send the `mtc` logger and its children to a file while inside. Raises ConfigError."""
    with disk_errors(path, "written"):
        handler = _QuietFileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.addHandler(handler)
    earlier, _log.propagate = _log.propagate, False
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.propagate = earlier
        handler.close()


def log_start(manifest: Path, overrides: Sequence[str], threads: int | None, device: str) -> None:
    """What one needs to know to tell one invocation from another."""
    versions = [f"{name} {_version(name)}" for name in VERSIONS]
    _log.info("start: %s", ", ".join([*versions, f"Python {platform.python_version()}"]))
    given = "".join(f" --set {override}" for override in overrides)
    _log.info("manifest %s%s; %s threads, device %s", manifest.absolute(), given, threads, device)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


class PhaseLog:
    """A line whenever the phase of a run changes."""

    def __init__(self) -> None:
        self._phase = ""

    def update(self, phase: str, step: int = 0) -> None:
        if phase != self._phase:
            _log.info("%s%s", phase, f", step {step:,}" if step else "")
            self._phase = phase
