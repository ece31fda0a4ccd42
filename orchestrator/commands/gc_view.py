"""`registry gc` on the screen: what a run could do without, or what has been deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from mtc_core.errors import MtcError
from orchestrator.commands.terminal import make_console
from orchestrator.registry.gc import (
    COSTS,
    LEFTOVERS,
    Collected,
    Rubbish,
    collect,
    find_rubbish,
    worked_on,
)
from orchestrator.run_folder.links import refuse_links_out
from orchestrator.tables import show_rows

UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(slots=True)
class Found:
    """deleted: whether `rubbish` is what has gone, not what could go. alone: sentences for what was
    left alone; refused: for what should have gone and could not."""

    deleted: bool
    rubbish: list[Rubbish] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.rubbish)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "deleted": self.deleted,
            "bytes": self.bytes,
            "rubbish": [one.to_dict() for one in self.rubbish],
            "left_alone": self.alone,
            "refused": self.refused,
        }


def told_rubbish(runs: Sequence[Path], kinds: Sequence[str], delete: bool) -> Found:
    """Look through runs, or clear them; on a terminal it is told which one. One that cannot be
    looked at, or cleared, hides none of the others."""
    found = Found(delete)
    with make_console(stderr=True).status("looking") as status:
        for run in runs:
            status.update(f"{'clearing' if delete else 'looking through'} {run}")
            collected = Collected()
            try:
                refuse_links_out(run)
                if worked_on(run):
                    found.alone.append(f"{run} is being worked on")
                    continue
                listed = find_rubbish(run, kinds)
                if not delete:
                    found.rubbish += listed
                elif listed:
                    collect(run, listed, collected)
            except MtcError as error:
                found.refused.append(str(error))
            found.rubbish += collected.gone
            found.alone += collected.kept
    return found


def show_rubbish(console: Console, found: Found) -> None:
    if found.rubbish:
        rows = [
            (one.run, one.kind, f"{len(one.paths):,}", in_units(one.bytes)) for one in found.rubbish
        ]
        show_rows(console, ("run", "kind", "how many", "size"), rows, left=("kind",))
        for kind in dict.fromkeys(one.kind for one in found.rubbish):
            console.print(f"{kind}: {COSTS[kind]}")
        for one in found.rubbish:  # their names may be anything
            if one.kind == LEFTOVERS:
                for path in one.paths:
                    console.print(f"  {Path(one.run) / path}", soft_wrap=True)
    for line in (*found.alone, *found.refused):
        console.print(line, soft_wrap=True)
    size = in_units(found.bytes)
    if found.deleted:
        console.print(f"{size} deleted")
    elif found.rubbish:
        console.print(f"{size} in all; nothing was deleted, --yes deletes it")
    else:
        console.print("nothing to delete")


def in_units(size: float) -> str:
    """`12.3 MB`."""
    for unit in UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {UNITS[-1]}"
