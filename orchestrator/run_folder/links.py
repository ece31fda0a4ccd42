"""Nothing is read or written through a link that leads out of a run folder: one that came from
elsewhere could have us overwrite a file of its reader, or publish one."""

from __future__ import annotations

import os
from pathlib import Path

from mtc_core.errors import ConfigError
from orchestrator.run_folder.disk_errors import disk_errors

THEIRS = "wandb"  # W&B links to its logs in the user's cache from there; we neither read nor write


def refuse_links_out(run: Path) -> None:
    """Raises ConfigError for the first such link; the run folder itself may be one."""
    with disk_errors(run, "read"):
        whole = Path(os.path.realpath(run))  # resolve() raises for links in a circle
        for parent, folders, files in os.walk(run):
            for path in (Path(parent, name) for name in (*folders, *files)):
                if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(whole):
                    raise ConfigError(
                        f"{path}: is a link to {os.readlink(path)}, out of the run folder; nothing "
                        "is read or written through it. Put the files themselves in its place, or "
                        "delete it"
                    )
            if Path(parent) == run and THEIRS in folders:
                folders.remove(THEIRS)
