"""`grafana`: the dashboard of a run's metrics, to be imported."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.commands.options import FilledCommand


@click.command(cls=FilledCommand)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write it to this file, not to standard output."
)
def grafana(out: Path | None) -> None:
    """Print a Grafana dashboard of what runs export to Prometheus, as JSON to import
    (orchestrator/WATCHING.md)."""
    import json

    from orchestrator.monitoring.grafana import dashboard
    from orchestrator.run_folder.disk_errors import disk_errors

    text = json.dumps(dashboard(), indent=2)
    if out is None:
        click.echo(text)
        return
    with disk_errors(out, "written"):
        out.write_text(text + "\n", encoding="utf-8")
    click.echo(f"wrote {out}: in Grafana, Dashboards > New > Import")
