"""The report of one run: figures and tables into their page."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from orchestrator.evaluating.show import splice_remarks
from orchestrator.pages.render import render
from orchestrator.reporting import html_tables as tables
from orchestrator.reporting.figures import curves, glance, speed, suite
from orchestrator.reporting.gather import Gathered
from orchestrator.reporting.verdicts import banner, key_figures


def report(run: Gathered, folder: Path) -> str:
    """One file of HTML, which asks nothing of any network. folder: where it will lie."""
    found = suite.spliced(run)
    return render(
        "report.html",
        title=f"{run.name} · report",
        run=run,
        where=str(run.path.absolute()),
        when=tables.when(run.at),
        banner=banner(run),
        key_figures=list(key_figures(run)),
        glance=glance.glance(run),
        quality=tables.quality(run),
        curves=curves.overview(run),
        by_prefix=curves.by_prefix(run),
        prefixes=curves.legend_of_prefixes(run),
        nonzeros=suite.nonzeros(run),
        densities=suite.densities(run),
        extreme=suite.extreme_rows(run),
        features=[(page.parent.name, _link(page, folder)) for page in run.features],
        spliced=found,
        spliced_table=tables.spliced(run.splice) if run.splice and found else None,
        spliced_prefixes=tables.spliced_prefixes(run.splice) if run.splice else None,
        splice_remarks=list(splice_remarks({"joint": None, **run.splice})) if run.splice else [],
        texts=list(_texts(run)),
        speed=speed.speed(run),
        invocations=tables.invocations(run),
        versions=tables.versions(run),
        layout=_layout(run),
        overrides=run.invocations[0].began.get("overrides") or [] if run.invocations else [],
        resolved=json.dumps(
            {name: value for name, value in run.recorded.items() if name != "specs"}, indent=2
        ),
        plotly=plotly_js(),
    )


def _link(page: Path, folder: Path) -> str:
    return quote(os.path.relpath(page, folder))


def plotly_js() -> Markup:
    """The library that draws, whole: five megabytes, so that the page needs nothing else."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def _texts(run: Gathered) -> Iterator[dict[str, Any]]:
    """What was measured on texts of the user's."""
    for text in run.texts:
        quality, splice = text["quality.json"], text["splice.json"]
        about = (quality or splice)["text"]
        yield {
            "path": about["path"],
            "quality": tables.own_text(quality) if quality else None,
            "spliced": tables.spliced(splice) if splice and splice["tokens"] else None,
            "remarks": list(splice_remarks({"joint": None, **splice})) if splice else [],
        }


def _layout(run: Gathered) -> str:
    """What plan.json says of who does what, in words."""
    if not (topology := run.plan.get("topology")):
        return ""
    why = run.plan.get("why")
    device = run.plan.get("device")
    return f"{topology} on {device}" + (f": {why}" if why else "")
