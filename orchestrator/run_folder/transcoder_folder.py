"""The files of one transcoder in a run folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mtc_core.errors import ConfigError
from orchestrator.run_folder.disk_errors import disk_errors

# How long an earlier process may live on. After its driver's death that is moments; on a host that
# is cut off from the cluster, it is three minutes until Ray (2.60) ends it there.
CLAIM_S = 200.0


@dataclass(frozen=True, slots=True)
class TranscoderFolder:
    """<run>/transcoders/<id>/"""

    path: Path

    def claim(self) -> BinaryIO:
        """Lock this folder for one process, and wait for an earlier one to let go: a trainer
        outlives a killed driver, or its host's last sign, and must write nothing beside its
        successor. The lock lasts while the file returned is open.

        Raises ConfigError after CLAIM_S."""
        with disk_errors(self.path, "written"):
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "ab")  # noqa: SIM115 (it outlives this call)
        deadline = time.monotonic() + CLAIM_S
        # Where a network file system has no such locks, the run lock has to do.
        with suppress(OSError):
            while not _locked(file):
                if time.monotonic() > deadline:
                    file.close()
                    raise ConfigError(
                        f"{self.path} is still being trained by an earlier process, whose driver "
                        "has ended or whose host was cut off; end that process (see its name with "
                        "ps: ray::TranscoderTrainer), and run the command again"
                    )
                time.sleep(0.2)
        return file

    @property
    def config(self) -> Path:
        """The spec, from the beginning of the run."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """A line every train.log_every_steps."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """mtc_core.checkpoint says what is in there."""
        return self.path / "checkpoints"

    @property
    def failed(self) -> Path:
        """Why this transcoder was stopped, if it was."""
        return self.path / "failed.json"

    @property
    def evaluation(self) -> Path:
        """Figures of the held-out test half."""
        return self.path / "evaluation.json"

    @property
    def final(self) -> Path:
        """What users load; its presence says that the transcoder is done."""
        return self.path / "final"


@contextmanager
def nobody_trains(transcoders: Path) -> Iterator[None]:
    """No process of an earlier invocation, while inside: see `TranscoderFolder.claim`."""
    with ExitStack() as held:
        for path in transcoders.glob("*/"):
            held.enter_context(TranscoderFolder(path).claim())
        yield


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
