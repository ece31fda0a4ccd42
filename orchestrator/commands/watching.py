"""`status --watch`: the picture that `run` shows, of a run in another process or on a cluster: all
that it takes is to see the run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from orchestrator.commands.run_view import figures, run_state
from orchestrator.differing import apart_by_id
from orchestrator.snapshot import Snapshot
from orchestrator.status_file import read_status
from orchestrator.view import make_view

LOOK_S = 0.5


def watch(folder: Path, console: Console) -> None:
    """Show how a run goes, until its driver is done, or gone."""
    apart = apart_by_id({row.id: row.spec for row in figures(folder)})
    view = make_view(console, apart)
    try:
        for status in _while_it_works(folder):
            view.show(Snapshot.from_dict(status))
    finally:
        view.close()


def watch_as_json(folder: Path) -> None:
    """A line of JSON for each change, and one for the end."""
    for _ in _while_it_works(folder):
        click.echo(json.dumps(run_state(folder)))
    click.echo(json.dumps(run_state(folder)))


def _while_it_works(folder: Path) -> Iterator[dict[str, Any]]:
    """What status.json says, each time that it is another."""
    last, changed_at = None, time.monotonic()
    while True:
        status = read_status(folder, time.monotonic() - changed_at)
        if status is None or status["state"] != "running":
            return
        if status["updated"] != last:
            last, changed_at = status["updated"], time.monotonic()
            yield status
        time.sleep(LOOK_S)
