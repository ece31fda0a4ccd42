"""All transcoders of a suite at once: of a run, of a folder that was shared, or of the Hub."""

from __future__ import annotations

from pathlib import Path

from mtc_core.checkpoint import CONFIG
from mtc_core.errors import CheckpointError
from mtc_core.transcoder import MatryoshkaTranscoder


def load_suite(place: str | Path, device: str = "cpu") -> dict[str, MatryoshkaTranscoder]:
    """Transcoders by id: the finished ones of a run folder, those of a folder `<id>/config.json`,
    of `hf://org/name[@revision]`, or of the W&B artifact `wandb://[entity/]project/artifact`.
    Raises CheckpointError if there is none, HubError."""
    if str(place).startswith("hf://"):
        from mtc_core.hub import fetch_suite

        place = fetch_suite(str(place))
    elif str(place).startswith("wandb://"):
        from mtc_core.wandb_artifacts import fetch_wandb_suite

        place = fetch_wandb_suite(str(place).removeprefix("wandb://"))
    folder = Path(place) / "transcoders"
    shared = sorted(Path(place).glob(f"*/{CONFIG}"))
    if shared and not folder.is_dir():
        return {path.parent.name: MatryoshkaTranscoder.load(path.parent, device) for path in shared}
    if not folder.is_dir():
        raise CheckpointError(f"{place} is no run folder: there is no {folder}")
    finals = sorted(path.parent for path in folder.glob(f"*/final/{CONFIG}"))
    if not finals:
        raise CheckpointError(
            f"{folder} holds no finished transcoder; `mtc-orchestrate status {place}` tells how "
            "far the run is, and running its manifest again continues it"
        )
    return {path.parent.name: MatryoshkaTranscoder.load(path, device) for path in finals}
