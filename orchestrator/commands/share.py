"""`mtc-orchestrate export` and `push`: a finished suite for others."""

from __future__ import annotations

import json
from pathlib import Path

import click

from orchestrator.commands.options import FilledCommand, json_option, root_option

NAMES = ("circuit-tracer", "saelens", "sparsify", "llamascopium", "gemma-scope")

only_option = click.option(
    "--only", multiple=True, metavar="ID", help="Only transcoders whose id begins so; repeatable."
)


model_option = click.option(
    "--model-name", help="What others call the model, if that is not its name in the manifest."
)


@click.command(cls=FilledCommand)
@click.argument("run")
@root_option
@click.option("--format", "format_", type=click.Choice(NAMES), required=True, help="Which tool's.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@only_option
@model_option
@json_option
def export(
    run: str,
    root: str,
    format_: str,
    out: Path,
    only: tuple[str, ...],
    model_name: str | None,
    as_json: bool,
) -> None:
    """Write the finished transcoders of RUN as another tool loads them. What its format cannot
    hold is refused or, where something near it can be written, measured and labelled."""
    from orchestrator.commands.terminal import make_console
    from orchestrator.evaluating.listener import listening
    from orchestrator.evaluating.subject import Subject
    from orchestrator.run_folder.find import find_run
    from orchestrator.run_folder.folder import RunFolder
    from orchestrator.sharing.exporting import export_run

    folder = find_run(run, root)
    subject = Subject.of(RunFolder(folder.parent, folder.name))
    console = make_console(stderr=as_json)
    with listening(console) as listener:
        record, how = export_run(subject, format_, out, only, model_name, listener)
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    console.print(f"{out}: {len(record['transcoders'])} transcoders as {format_}", soft_wrap=True)
    for id, one in record["transcoders"].items():
        if one["lossy"]:
            console.print(f"{id}: {one['lossy']}", soft_wrap=True)
    console.print(how, soft_wrap=True)


@click.command(cls=FilledCommand)
@click.argument("run")
@click.argument("address", metavar="hf://ORG/NAME")
@root_option
@only_option
@click.option(
    "--format", "format_", type=click.Choice(NAMES), help="Send it as this tool loads it."
)
@click.option("--private", is_flag=True, help="Make the repository private, or refuse.")
@model_option
def push(
    run: str,
    address: str,
    root: str,
    only: tuple[str, ...],
    format_: str | None,
    private: bool,
    model_name: str | None,
) -> None:
    """Send the finished transcoders of RUN, with a model card, to the Hugging Face Hub, or to a W&B
    project (wandb://PROJECT). Tokens are those of HF_TOKEN and WANDB_API_KEY."""
    from orchestrator.commands.terminal import make_console
    from orchestrator.evaluating.listener import listening
    from orchestrator.evaluating.subject import Subject
    from orchestrator.run_folder.find import find_run
    from orchestrator.run_folder.folder import RunFolder
    from orchestrator.sharing.pushing import push_run

    folder = find_run(run, root)
    subject = Subject.of(RunFolder(folder.parent, folder.name))
    console = make_console()
    with listening(console) as listener:
        there = push_run(subject, address, only, format_, private, model_name, listener)
    console.print(there, soft_wrap=True)
