"""Export a run: choose, refuse, measure what is lost, write, and describe in a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtc_core.export.exporting import Export
from orchestrator.evaluating.listener import Listener
from orchestrator.evaluating.subject import Subject
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.sharing.card import card
from orchestrator.sharing.chosen import choose, facts_of, load_chosen, measure_changes
from orchestrator.sharing.known import model_of


def export_run(
    subject: Subject,
    format: str,
    out: Path,
    only: Sequence[str],
    model_name: str | None,
    listener: Listener,
    *,
    sent: bool = False,
) -> tuple[dict[str, Any], str]:
    """The record of what was written, and how to load it: Python in Markdown. model_name: what the
    model is called elsewhere, where that is not what it is called here. sent: to others, who are
    not told of places on this machine. Raises MtcError."""
    ids = choose(subject, only)
    own_name = model_of(subject) if sent else subject.manifest.model.name
    facts = facts_of(subject, model_name or own_name)
    export = Export(load_chosen(subject, ids), format, facts)
    changes = measure_changes(subject, export, listener)

    def readme(record: dict[str, Any]) -> str:
        return card(subject, ids, format, export.how_to_load("FOLDER"), model_name, record)

    with disk_errors(out, "written"):
        record = export.write(out, changes, readme)
    return record, export.how_to_load(str(out.resolve()))
