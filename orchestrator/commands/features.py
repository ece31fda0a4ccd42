"""`mtc-orchestrate features`: what each latent of a finished suite responds to, as pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.options import FilledCommand, json_option, root_option

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.features.features import Found

HEADS = ("transcoder", "latents", "on", "with a parent", "rows")


@click.command(cls=FilledCommand)
@click.argument("run")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@root_option
@click.option("--text", help="Look at this text (as data.path) instead of the test half.")
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Of the text, at most.",
)
@click.option(
    "--contexts",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Strongest contexts of each latent.",
)
@click.option(
    "--window",
    type=click.IntRange(0, 1000),
    default=16,
    show_default=True,
    help="Tokens shown before a peak, and after it.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write, not the run's own.")
@json_option
def features(
    run: str,
    ids: tuple[str, ...],
    root: str,
    text: str | None,
    tokens: int,
    contexts: int,
    window: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find what each latent of RUN responds to: its strongest contexts, how often it is on, the
    tokens it promotes, its neighbours, its likely parent. Writes pages to browse, and the same as
    JSON. ID: only transcoders whose id begins so."""
    from orchestrator.commands.terminal import make_console
    from orchestrator.evaluating.listener import listening
    from orchestrator.features.features import Wanted, find_features
    from orchestrator.interrupts import Interrupted, interrupts
    from orchestrator.reporting.at_the_end import renew_report
    from orchestrator.run_folder.find import find_run
    from orchestrator.run_folder.folder import RunFolder

    folder = find_run(run, root)
    run_folder = RunFolder(folder.parent, folder.name)
    wanted = Wanted(ids=ids, text=text, tokens=tokens, contexts=contexts, window=window, out=out)
    console = make_console(stderr=as_json)
    with interrupts("stopping; press Ctrl-C again to end at once") as interrupt:
        try:
            with listening(console, interrupt.check) as listener:
                found = find_features(run_folder, wanted, listener)
        except Interrupted:
            console.print(
                "interrupted; the same command begins again, with what is not written yet",
                soft_wrap=True,
            )
            raise SystemExit(interrupt.exit_code) from None
    if found.written and out is None:  # it leads there
        renew_report(run_folder, console)
    if as_json:
        click.echo(json.dumps(_as_json(found), indent=2))
    else:
        _show(make_console(), found)


def _as_json(found: Found) -> dict:
    return {
        "page": str(found.page),
        "seconds": round(found.seconds, 1),
        "written": list(found.written),
        "transcoders": {
            id: {**about, "folder": str(found.folder / id)}
            for id, about in found.transcoders.items()
        },
    }


def _show(console: Console, found: Found) -> None:
    from orchestrator.tables import show_rows

    rows = [
        (
            id,
            f"{sum(about['group_sizes']):,}",
            f"{about['alive']:,}",
            f"{about['with_parent']:,}",
            f"{about['rows']:,}",
        )
        for id, about in found.transcoders.items()
    ]
    show_rows(console, HEADS, rows)
    console.print("on: at least once in this text; with a parent: in an earlier group")
    if not found.written:
        console.print("all of it was there already")
    console.print(f"open {found.page}", soft_wrap=True)
