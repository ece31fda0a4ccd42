"""A run by what a user calls it."""

from __future__ import annotations

from pathlib import Path

from mtc_core.errors import ConfigError
from mtc_core.places import place
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.links import refuse_links_out


def find_run(run: str, root: Path | str) -> Path:
    """A run folder by its path, or by its name under the root. Raises ConfigError."""
    for folder in (place(run), Path(root) / run):
        with disk_errors(folder, "read"):
            if (folder / "resolved.json").is_file():
                refuse_links_out(folder)
                return folder
    if Path(run).suffix in (".yaml", ".yml"):
        raise ConfigError(f"{run} is a manifest; give the name: in it, or the folder of its run")
    raise ConfigError(
        f"{run}: no run folder here and no run of that name under {root}; "
        f"`mtc-orchestrate list --root {root}` shows what is there"
    )
