"""`registry`: the index of a run, whether its files are what they claim to be, and which of them it
could do without."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mtc_core.errors import ConfigError
from orchestrator.commands.options import Commands, json_option, root_option
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.find import find_run

FAULTY = 1
KINDS = ("checkpoints", "tokens", "measurements", "leftovers")  # of registry/gc.py


@click.group(cls=Commands)
def registry() -> None:
    """Rebuild the index of a run, verify every file of it, or delete what it does not need any more
    (orchestrator/REGISTRY.md)."""


@registry.command()
@click.argument("run")
@root_option
def rebuild(run: str, root: str) -> None:
    """Write index.sqlite of RUN anew from its files."""
    from orchestrator.registry import index

    click.echo(f"rebuilt {index.rebuild(find_run(run, root))}")


@registry.command()
@click.argument("run")
@root_option
@json_option
def verify(run: str, root: str, as_json: bool) -> None:
    """Recompute every sha256 of RUN, read its records, and tell what is wrong. Changes nothing."""
    from orchestrator.commands.terminal import make_console
    from orchestrator.registry.verify import verify as verify_run

    folder, console = find_run(run, root), make_console(stderr=True)
    with console.status(f"verifying {folder}") as status:  # shown on terminals only
        found = verify_run(folder, lambda id: status.update(f"verifying {id}"))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        for path in found.leftovers:
            click.echo(f"{path}: left by a writer that was killed, or is just writing; no fault")
        for fault in found.faults:
            click.echo(f"{fault.path}: {fault.what}; {fault.remedy}")
        wrong = f", {len(found.faults)} things wrong" if found.faults else ""
        click.echo(f"{found.files} files verified{wrong}")
    raise SystemExit(FAULTY if found.faults else 0)


@registry.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@root_option
@click.option(
    "--only",
    type=click.Choice(KINDS),
    multiple=True,
    help="Only what is of this kind; repeatable.",
)
@click.option("--yes", is_flag=True, help="Delete what is listed.")
@json_option
def gc(runs: tuple[str, ...], root: str, only: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Show what each RUN, or all runs under --root, could do without, and what its loss would cost;
    with --yes, delete it. Weights, metrics and evaluations stay, and so does all of a run that
    somebody works on."""
    from orchestrator.commands.gc_view import show_rubbish, told_rubbish
    from orchestrator.commands.terminal import make_console

    folders = [find_run(run, root) for run in runs]
    if not runs:
        with disk_errors(Path(root), "read"):
            if not Path(root).exists():
                raise ConfigError(f"--root {root}: there is no such folder")
            folders = sorted(path.parent for path in Path(root).glob("*/resolved.json"))
    # A run may be named twice, or by a link, too.
    folders.sort(key=lambda folder: folder.is_symlink())
    folders = list({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]
    found = told_rubbish(folders, only or KINDS, yes)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        show_rubbish(make_console(), found)
    raise SystemExit(FAULTY if found.refused else 0)
