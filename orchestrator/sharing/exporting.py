"""Export a run: choose, refuse, measure what is lost, write, and describe in a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtc_core.atomic import write_bytes_atomic
from mtc_core.export.exporting import Export
from orchestrator.evaluating.listener import Listener
from orchestrator.evaluating.subject import Subject
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.sharing.card import card
from orchestrator.sharing.chosen import choose, facts_of, load_chosen, measure_changes


def export_run(
    subject: Subject, format: str, out: Path, only: Sequence[str], listener: Listener
) -> tuple[dict[str, Any], str]:
    """The record of what was written, and how to load it: Python in Markdown. Raises MtcError."""
    ids = choose(subject, only)
    export = Export(load_chosen(subject, ids), format, facts_of(subject))
    changes = measure_changes(subject, export, listener)
    with disk_errors(out, "written"):
        record = export.write(out, changes)
        how = export.how_to_load(str(out.absolute()))
        text = card(subject, ids, format, export.how_to_load("FOLDER"), record)
        write_bytes_atomic(out / "README.md", text.encode())
    return record, how
