"""Commands that ask many runs at once: `list`, `best`, `compare`. They need no lock."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mtc_core.errors import ConfigError
from mtc_core.places import is_there
from orchestrator.commands.options import FilledCommand, fail, json_option, root_option

Command = Callable[..., Any]
BOTH = "--json and --csv: choose one of them"

where_option = click.option(
    "filters",
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only rows of which this holds: k=32, fvu<0.3, 'run=sweep-*', state!=done, kl!=none; "
    "repeatable. Columns are those of --csv, but path.",
)
runs_where_option = click.option(
    "filters",
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only runs of which this holds: mean_fvu<0.3, 'run=sweep-*', run_state!=done; repeatable. "
    "Columns are those of --csv, but path.",
)
csv_option = click.option("as_csv", "--csv", is_flag=True, help="Print CSV: all columns.")


@click.command(name="list", cls=FilledCommand)
@root_option
@runs_where_option
@csv_option
@json_option
def list_runs(root: str, filters: tuple[str, ...], as_csv: bool, as_json: bool) -> None:
    """List the runs under --root."""
    from orchestrator.commands.many_view import show_list, told_runs, write_csv
    from orchestrator.commands.terminal import make_console
    from orchestrator.registry.columns import RUN
    from orchestrator.registry.filters import parse_filters

    if as_csv and as_json:
        fail(BOTH)
    conditions = parse_filters(filters, [name for name in RUN if name != "path"])
    with told_runs(root if is_there(Path(root)) else []) as found:
        runs = found.runs(conditions)
    if as_csv:
        write_csv(list(RUN), runs)
    elif as_json:
        from orchestrator.commands.run_view import listed_state

        states = [listed_state(Path(run["path"])) for run in runs]
        click.echo(json.dumps(states, indent=2))
    elif runs:
        show_list(make_console(), runs)
    else:
        click.echo(f"no runs under {root}" + (" of which that holds" if filters else ""))


@click.command(cls=FilledCommand)
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@root_option
@click.option(
    "--by",
    default="fvu",
    show_default=True,
    metavar="COLUMN",
    help="What counts: fvu, l0, dead, ce, kl (lower is better), ce_recovered, top1 (higher) …",
)
@click.option("--layer", metavar="3|0-5", help="Only those whose source or target lies there.")
@where_option
@click.option(
    "--top", type=click.IntRange(min=0), default=10, show_default=True, help="How many; 0: all."
)
@csv_option
@json_option
def best(
    runs: tuple[str, ...],
    root: str,
    by: str,
    layer: str | None,
    filters: tuple[str, ...],
    top: int,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Rank the transcoders of each RUN, or of all runs under --root, by a held-out figure. Those
    that are done count, unless --where asks for another state."""
    from orchestrator.commands.many_view import show_best, told_runs, write_csv
    from orchestrator.commands.terminal import make_console
    from orchestrator.registry.columns import COLUMNS
    from orchestrator.registry.filters import parse_filters, parse_layers
    from orchestrator.registry.query import column_of
    from orchestrator.run_folder.find import find_run

    if as_csv and as_json:
        fail(BOTH)
    column = column_of(by)
    conditions = parse_filters(filters)
    if not any("state" in condition.columns for condition in conditions):
        conditions += parse_filters(["state=done"])
    if layer is not None:
        conditions.append(parse_layers(layer))
    where = [find_run(run, root) for run in runs] or root
    with told_runs(where) as found:
        rows = found.transcoders(conditions, column, top or None)
        count, unreadable = found.count(conditions, column), found.unreadable()
    if runs and unreadable:
        raise ConfigError("\n".join(unreadable))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif as_csv:
        write_csv(list(COLUMNS), rows)
    else:
        show_best(make_console(), rows, column, count)
    for line in unreadable:
        click.echo(line, err=as_json or as_csv)


@click.command(cls=FilledCommand)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@root_option
@where_option
@csv_option
@json_option
def compare(
    runs: tuple[str, ...], root: str, filters: tuple[str, ...], as_csv: bool, as_json: bool
) -> None:
    """Hold the transcoders of each RUN against those of the same source and target in the others,
    or in a sweep against each other: what differs, the figures, and FVU against L0 as a picture."""
    from orchestrator.commands.many_view import told_runs, write_csv
    from orchestrator.commands.terminal import make_console
    from orchestrator.comparing.comparison import Comparison
    from orchestrator.comparing.show import show_comparison
    from orchestrator.registry.columns import COLUMNS
    from orchestrator.registry.filters import parse_filters
    from orchestrator.run_folder.find import find_run

    if as_csv and as_json:
        fail(BOTH)
    conditions = parse_filters(filters)
    folders = [find_run(run, root) for run in runs]
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise ConfigError(f"{runs[number]} is named twice: {place}")
    with told_runs(folders) as found:
        if unreadable := found.unreadable():
            raise ConfigError("\n".join(unreadable))
        rows = found.transcoders(conditions)
        order = {path: places.index(Path(path).resolve()) for path in {row["path"] for row in rows}}
        rows.sort(key=lambda row: order[row["path"]])
        comparison = Comparison.of(rows)
    if as_json:
        click.echo(json.dumps(comparison.to_dict(), indent=2))
    elif as_csv:
        write_csv(list(COLUMNS), comparison.rows)
    else:
        show_comparison(make_console(), comparison)
