"""`mtc-orchestrate eval`: measure a finished suite on held-out text, or on one's own."""

from __future__ import annotations

import json
from pathlib import Path

import click

from orchestrator.commands.options import FilledCommand, json_option, root_option

TOKENS = 4096


@click.command(name="eval", cls=FilledCommand)
@click.argument("run")
@root_option
@click.option("--text", help="Measure on this text (as data.path) instead of the test half.")
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    default=TOKENS,
    show_default=True,
    help="Tokens to splice; each takes a pass of the model for every transcoder and prefix.",
)
@json_option
def evaluate(run: str, root: str, text: str | None, tokens: int, as_json: bool) -> None:
    """Measure the finished transcoders of RUN: reconstruction, and what the model predicts when
    they take the place of what they predict, one at a time, each prefix, and all together. Killed
    and called again, it goes on."""
    from orchestrator.commands.terminal import make_console
    from orchestrator.evaluating.evaluate import Wanted
    from orchestrator.evaluating.evaluate import evaluate as measure
    from orchestrator.evaluating.listener import listening
    from orchestrator.evaluating.results import QUALITY, SPLICE
    from orchestrator.interrupts import Interrupted, interrupts
    from orchestrator.reporting.at_the_end import renew_report
    from orchestrator.run_folder.find import find_run
    from orchestrator.run_folder.folder import RunFolder

    folder = find_run(run, root)
    run_folder = RunFolder(folder.parent, folder.name)
    wanted = Wanted(text=text, tokens=tokens)
    console = make_console(stderr=as_json)
    with interrupts() as interrupt:
        try:
            with listening(console, interrupt.check) as listener:
                results = measure(run_folder, wanted, listener)
        except Interrupted:
            console.print("interrupted; the same command goes on where it was", soft_wrap=True)
            raise SystemExit(interrupt.exit_code) from None
    renew_report(run_folder, console)
    found = {name.partition(".")[0]: results.read(name) for name in (QUALITY, SPLICE)}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _show(folder, found)


def _show(folder: Path, found: dict) -> None:
    from orchestrator.commands.run_view import figures
    from orchestrator.commands.terminal import make_console
    from orchestrator.evaluating.show import show_own_text, show_prefixes, show_splice
    from orchestrator.summary import show_quality

    console = make_console()
    if found["quality"]:
        show_own_text(console, found["quality"])
    else:
        show_quality(console, figures(folder))
    if found["splice"]:
        console.print()
        show_splice(console, found["splice"])
        show_prefixes(console, found["splice"])
