"""The files of one transcoder in a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TranscoderFolder:
    """<run>/transcoders/<id>/"""

    path: Path

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
