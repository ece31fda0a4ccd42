"""`registry`: the index of a run, and whether its files are what they claim to be."""

from __future__ import annotations

import json

import click

from orchestrator.commands.options import json_option, root_option
from orchestrator.run_folder.find import find_run

FAULTY = 1


@click.group()
def registry() -> None:
    """Rebuild the index of a run, or verify every file of it (orchestrator/REGISTRY.md)."""


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
    """Read every file of RUN, recompute every sha256, and tell what is wrong. Changes nothing."""
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
