"""`mtc-orchestrate`: options and printing. Each command loads what it needs when it is called.

Exit codes: 0 done · 1 some transcoders failed · 2 a mistake that the user can mend, as one message
3 stopped by a bug or by the machine · 130, 143, 129 interrupted · 141 nobody reads the pipe.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtc_core.kernels.spinning import spin_briefly
from orchestrator.commands import many_runs
from orchestrator.commands import registry as cli_registry
from orchestrator.commands import runs as cli_runs
from orchestrator.commands.evaluate import evaluate
from orchestrator.commands.features import features
from orchestrator.commands.grafana import grafana
from orchestrator.commands.init import init
from orchestrator.commands.options import (
    Commands,
    hardware_options,
    json_option,
    root_option,
    set_option,
    uncollected,
)
from orchestrator.commands.report import report
from orchestrator.commands.share import export, push

if TYPE_CHECKING:
    from orchestrator.backend import Backend


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mtc-orchestrator")
def cli() -> None:
    """Train every Matryoshka transcoder of a manifest from one shared forward pass."""


@cli.command()
@click.argument("manifest")
@set_option
@uncollected()
def validate(manifest: str, overrides: tuple[str, ...]) -> None:
    """Check MANIFEST without a model, a network or a GPU; tell every mistake at once."""
    from orchestrator.manifest import load_manifest, unchecked

    loaded = load_manifest(manifest, overrides)
    click.echo(f"{manifest}: valid")
    for line in unchecked(loaded):
        click.echo(f"not checked: {line}")


@cli.command()
@click.argument("manifest")
@root_option
@set_option
@hardware_options
@json_option
def plan(
    manifest: str,
    root: str,
    overrides: tuple[str, ...],
    nodes: int | None,
    gpus_per_node: int | None,
    gpu_memory: int | None,
    as_json: bool,
) -> None:
    """Show what MANIFEST comes to here, or on other hardware: transcoders, FLOPs, memory, disk.
    Loads no weights."""
    from orchestrator.commands.planning import Hardware, plan_manifest

    elsewhere = Hardware.of(nodes, gpus_per_node, gpu_memory)
    planned = plan_manifest(manifest, overrides, Path(root), elsewhere)
    if as_json:
        import json

        click.echo(json.dumps(planned.to_dict(), indent=2))
        return
    from orchestrator.commands.plan_view import show_plan
    from orchestrator.commands.terminal import make_console

    lacking = [*planned.shortages, *planned.remedies]
    show_plan(make_console(), planned.plan, planned.inventory, lacking)


@cli.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@root_option
@set_option
@click.option(
    "--backend",
    type=click.Choice(["ray", "local"]),
    default="ray",
    show_default=True,
    help="Where cells run: as Ray actors, or in this process.",
)
@click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="Join this Ray cluster (`auto`, HOST:PORT) and leave it running. Without: a Ray of this "
    "run's own.",
)
@click.option("--no-dashboard", is_flag=True, help="Start that Ray without its dashboard.")
@json_option
def run(
    manifest: Path,
    root: str,
    overrides: tuple[str, ...],
    backend: str,
    address: str | None,
    no_dashboard: bool,
    as_json: bool,
) -> None:
    """Train every transcoder of MANIFEST, or continue where an earlier run stopped. With --json,
    what `status` knows at the end goes to standard output, and everything else to the other."""
    from orchestrator import driver
    from orchestrator.commands.terminal import EnduringConsole, make_console
    from orchestrator.prepare import Request

    request = Request(manifest, Path(root), overrides)
    cells = _backend(backend, address, dashboard=not no_dashboard)
    console = make_console(EnduringConsole, stderr=as_json)
    code, folder = driver.run_in_folder(request, cells, console)
    if as_json:
        from orchestrator.commands.run_view import print_end

        print_end(folder.path, code)
    raise SystemExit(code)


def _backend(name: str, address: str | None, dashboard: bool) -> Backend:
    if name == "local":
        from orchestrator.local_backend import LocalBackend

        return LocalBackend()
    from orchestrator.ray_backend.backend import RayBackend

    return RayBackend(None if address == "local" else address, dashboard)


for command in (
    init,
    evaluate,
    features,
    export,
    push,
    grafana,
    cli_runs.status,
    many_runs.list_runs,
    cli_runs.metrics,
    report,
    many_runs.compare,
    many_runs.best,
):
    cli.add_command(command)
cli.add_command(cli_registry.registry)


def main() -> None:
    """Entry point of `mtc-orchestrate`."""
    spin_briefly()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever it can show of ≈, ± and somebody's path
            stream.reconfigure(errors="replace")
    cli()
