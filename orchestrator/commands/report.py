"""`mtc-orchestrate report`: a run, or several beside each other, as one page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from orchestrator.commands.options import FilledCommand, json_option, root_option

COMPARISON = "comparison.html"


@click.command(cls=FilledCommand)
@click.argument("runs", metavar="RUN [RUN...]", nargs=-1, required=True)
@root_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Write it there. Default: report.html in the folder of the run; {COMPARISON} here, where "
    "several are compared.",
)
@json_option
def report(runs: tuple[str, ...], root: str, out: Path | None, as_json: bool) -> None:
    """Write a page about RUN (a folder, or a name under --root), finished or not; or, of several,
    one that compares them. It opens in any browser, without a network."""
    from orchestrator.reporting.at_the_end import write_comparison, write_report
    from orchestrator.run_folder.find import find_run
    from orchestrator.run_folder.folder import RunFolder

    folders = [find_run(run, root) for run in runs]
    if len(folders) == 1:
        out = out or RunFolder(folders[0].parent, folders[0].name).report
        write_report(folders[0], out)
    else:
        out = out or Path(COMPARISON)
        write_comparison(folders, out)
    if as_json:
        from orchestrator.commands.run_view import figures, rows_with_verdicts

        found = [
            {"run": str(folder), "transcoders": rows_with_verdicts(figures(folder))}
            for folder in folders
        ]
        click.echo(json.dumps({"page": str(out), "runs": found}, indent=2))
    else:
        click.echo(f"report: {out}")
