"""Commands that look at a run: `status`, `metrics`. They need no lock."""

from __future__ import annotations

import json
from pathlib import Path

import click

from orchestrator.commands.options import INTERRUPTED, FilledCommand, fail, json_option, root_option
from orchestrator.run_folder.find import find_run


@click.command(cls=FilledCommand)
@click.argument("run")
@root_option
@click.option(
    "--watch",
    is_flag=True,
    help="Stay, and show how it goes, until it ends. Ctrl-C leaves; the run goes on.",
)
@json_option
def status(run: str, root: str, watch: bool, as_json: bool) -> None:
    """Show how RUN (a folder, or a name under --root) stands: also one that works in another
    process or on a cluster. With --watch --json, a line for each change."""
    from orchestrator.commands.run_view import figures, run_state, show_status
    from orchestrator.commands.terminal import make_console

    folder = find_run(run, root)
    if watch:
        _watch(folder, as_json)
    if as_json:
        if not watch:
            click.echo(json.dumps(run_state(folder), indent=2))
    else:
        show_status(make_console(), run_state(folder), figures(folder))


def _watch(folder: Path, as_json: bool) -> None:
    from orchestrator.commands.terminal import make_console
    from orchestrator.commands.watching import watch, watch_as_json

    try:
        if as_json:
            watch_as_json(folder)
        else:
            watch(folder, make_console())
    except KeyboardInterrupt:
        fail(f"no longer watching; {folder} goes on as before", INTERRUPTED)


@click.command(cls=FilledCommand)
@click.argument("run")
@click.argument("transcoder", metavar="[ID]", required=False)
@root_option
@json_option
def metrics(run: str, transcoder: str | None, root: str, as_json: bool) -> None:
    """Show the held-out figures of RUN or, given the ID of a transcoder (its beginning is enough),
    its training curve."""
    from orchestrator.commands.run_view import curve, figures, rows_with_verdicts, show_curve
    from orchestrator.commands.terminal import make_console
    from orchestrator.evaluating.show import show_spliced_test
    from orchestrator.summary import show_quality

    folder = find_run(run, root)
    if transcoder is None:
        rows = figures(folder)
        if as_json:
            click.echo(json.dumps(rows_with_verdicts(rows), indent=2))
        else:
            show_quality(make_console(), rows)
            show_spliced_test(make_console(), folder)
        return
    lines = curve(folder, transcoder)
    if as_json:
        click.echo(json.dumps(lines, indent=2))
    else:
        show_curve(make_console(), lines)
