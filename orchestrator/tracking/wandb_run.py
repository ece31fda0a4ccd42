"""One W&B run; the only file here that imports wandb.

Quiet, without code, git (the URL of a remote may hold a token) and error reports to its makers;
system metrics, those of the machine and of the driver's processes, stay.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.tracking.names import STEP, TOKENS

INIT_S = 30.0
FLUSH_S = 5.0  # how often W&B writes its own file; what it has not written dies with it


class WandbRun:
    """Opened on creation. Whatever wandb raises passes through."""

    def __init__(
        self,
        folder: Path,
        *,
        id: str,
        mode: str,
        project: str,
        entity: str | None,
        config: Mapping[str, Any],
        sections: list[str],
        finish_s: float,
    ) -> None:
        """`sections`: key prefixes whose x-axis is our step. W&B's own step counts calls, and only
        upwards: it would drop the points of a transcoder that lags."""
        import wandb

        self._run = wandb.init(
            dir=folder,
            id=id,
            resume="allow",
            mode=mode,  # type: ignore[arg-type]
            project=project,
            entity=entity,
            name=folder.resolve().name,
            config=dict(config),
            settings=_settings(finish_s),
        )
        for name in (STEP, TOKENS):
            self._run.define_metric(name, hidden=True)
        for section in sections:
            self._run.define_metric(f"{section}/*", step_metric=STEP)

    @property
    def url(self) -> str | None:
        return self._run.url

    @property
    def folder(self) -> Path:
        """Where W&B keeps this part of the run."""
        return Path(self._run.settings.sync_dir)

    def log(self, row: Mapping[str, float]) -> None:
        self._run.log(dict(row))

    def summarize(self, figures: Mapping[str, float]) -> None:
        self._run.summary.update(dict(figures))

    def finish(self, exit_code: int) -> None:
        """Close the run. Online it returns when all is uploaded, or raises TimeoutError."""
        self._run.finish(exit_code=exit_code)


def _settings(finish_s: float) -> Any:
    import wandb

    wanted: dict[str, Any] = {
        "console": "off",
        "silent": True,
        "save_code": False,
        "disable_code": True,
        "disable_git": True,
        "init_timeout": INIT_S,
        "finish_timeout": finish_s,
        "finish_timeout_raises": True,
        "x_transaction_log_flush_interval": FLUSH_S,
        "x_stats_pid": os.getppid(),
        "x_stats_track_process_tree": True,
    }
    known = wandb.Settings.model_fields  # the x_ ones come and go
    return wandb.Settings(**{name: wanted[name] for name in wanted.keys() & known.keys()})
