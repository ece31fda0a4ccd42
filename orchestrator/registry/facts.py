"""A run folder read into rows. Small files only: no weights, no lock, nothing is written.

A damaged small file is told in the `damaged` column of its row, which is then without what the
file would have said, so that the rest of the run stays readable. Only without a sound
resolved.json is there no run to speak of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtc_core.config import AUTO_LR_STEPS, BY_STEPS, TranscoderSpec
from mtc_core.errors import ConfigError, MtcError
from orchestrator.registry.invocations import read_invocations
from orchestrator.registry.rows import Facts, RunRow
from orchestrator.registry.small_files import ODD, Damaged, Notes, number, read_object, text
from orchestrator.registry.transcoder_facts import read_transcoder
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.folder import RunFolder
from orchestrator.status_file import NAME as STATUS


def read_facts(run: Path) -> Facts:
    """Everything that the small files of a run say. Raises ConfigError where it has no sound
    resolved.json, or where the disk refuses."""
    folder = RunFolder(run.parent, run.name)
    resolved = folder.recorded()
    if resolved is None:  # it was there when the folder was found
        raise ConfigError(f"{run} is just being begun anew; look again in a moment")
    with disk_errors(run, "read"):
        try:
            return _read(folder, resolved)
        except (*ODD, MtcError) as error:
            raise ConfigError(f"{folder.resolved} is damaged: {error!r}") from None


def _read(folder: RunFolder, resolved: Mapping[str, Any]) -> Facts:
    facts, notes = Facts(), Notes(folder.path)
    widths = {}
    with notes.of_damage():
        widths = _planned_widths(folder.plan)
    train = resolved["train"]
    steps = train["tokens"] // train["batch_tokens"]
    lr_steps = steps if resolved["pins"].get("auto_lr") == BY_STEPS else AUTO_LR_STEPS
    for id, plain in resolved["specs"].items():
        spec = TranscoderSpec.from_dict(plain)
        planned = {**widths.get(id, {}), "lr": spec.learning_rate(lr_steps)}
        read_transcoder(folder.transcoder(id), id, spec, planned, steps, facts)
    facts.invocations.extend(read_invocations(folder.path))
    facts.run.append(_run_row(folder, resolved, facts, steps, notes))
    return facts


def _run_row(
    folder: RunFolder, resolved: Mapping[str, Any], facts: Facts, steps: int, notes: Notes
) -> RunRow:
    status = _status(folder.path)
    began = [row.began for row in facts.invocations if row.began is not None]
    states = [row.state for row in facts.transcoders]
    pins, train = resolved["pins"], resolved["train"]
    return RunRow(
        name=resolved["name"],
        began=began[0] if began else folder.resolved.stat().st_mtime,
        model=resolved["model"]["name"],
        model_commit=pins.get("model"),
        dataset=resolved["data"]["path"],
        dataset_commit=pins.get("dataset"),
        provider=pins.get("provider"),
        seed=resolved["seed"],
        tokens=train["tokens"],
        batch_tokens=train["batch_tokens"],
        steps=steps,
        state=text(status.get("state")),
        step=number(status.get("step")),
        transcoders=len(states),
        done=states.count("done"),
        failed=states.count("failed"),
        damaged=notes.text,
    )


def _status(run: Path) -> dict[str, Any]:
    """A view, which may be missing, or damaged by a power cut."""
    try:
        return read_object(run / STATUS) or {}
    except (OSError, Damaged):
        return {}


def _planned_widths(path: Path) -> dict[str, dict[str, Any]]:
    """Id -> what plan.json says of it. Raises Damaged."""
    plan = read_object(path) or {}
    try:
        return {planned["id"]: planned for planned in plan.get("transcoders", [])}
    except (KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged: {error!r}") from None
