"""Features as pages: one for all transcoders, a table for each, and fifty latents a page.

Static, without a network, out of the records alone; the table has a few lines of script to sort and
to filter, and is complete without.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from orchestrator.features.marked import marked, snippet, token
from orchestrator.features.records import Record
from orchestrator.pages.render import render

PAGE = 50  # latents
CHILDREN = 16  # shown of a latent
About = dict[str, Any]  # features.json


def page_name(latent: int) -> str:
    """Of the page that a latent is on."""
    return f"latents-{latent // PAGE * PAGE:04d}.html"


def suite_page(run: str, model: str, abouts: Sequence[About]) -> str:
    """All transcoders that have features here."""
    return render(
        "features_suite.html", title=f"{run}: features", run=run, model=model, abouts=abouts,
        text_of=text_of,
    )  # fmt: skip


def table_page(about: About, records: Sequence[Record]) -> str:
    """A row for each latent of a transcoder that was on."""
    on = [record for record in records if record["fired"]]
    return render(
        "features_table.html", title=f"{about['id']}: latents", about=about, records=on,
        silent=ranges([record["latent"] for record in records if not record["fired"]]),
        groups=group_ends(about), **_SHARED,
    )  # fmt: skip


def latents_page(about: About, records: Sequence[Record], has_page: Collection[int]) -> str:
    """The latents of one page. has_page: those that can be linked to."""
    first, last = records[0]["latent"], records[-1]["latent"]
    begin = first // PAGE * PAGE
    return render(
        "features_latents.html", title=f"{about['id']}: latents {first} to {last}", about=about,
        records=records, has_page=has_page, groups=group_ends(about), begin=begin, page=PAGE,
        before=_nearest(has_page, range(begin - 1, -1, -1)),
        after=_nearest(has_page, range(begin + PAGE, sum(about["group_sizes"]))),
        children=CHILDREN, **_SHARED,
    )  # fmt: skip


def _nearest(has_page: Collection[int], order: range) -> int | None:
    return next((latent for latent in order if latent in has_page), None)


def group_ends(about: About) -> list[tuple[int, int]]:
    """First and last latent of each group."""
    ends = [0]
    for size in about["group_sizes"]:
        ends.append(ends[-1] + size)
    return [(a, b - 1) for a, b in pairwise(ends)]


def ranges(latents: Sequence[int]) -> str:
    """Ascending numbers, neighbours joined: `3, 7–9, 12`."""
    runs: list[list[int]] = []
    for latent in latents:
        if runs and runs[-1][-1] == latent - 1:
            runs[-1][1:] = [latent]
        else:
            runs.append([latent])
    return ", ".join("–".join(map(str, run)) for run in runs)


def text_of(about: About) -> str:
    """What text it is, in words."""
    path = about["text"]["path"]
    return "the test half of the holdout" if path is None else str(path)


def percent(share: float) -> str:
    """A share with two digits, also a small one."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    text = f"{abs(value):#.3g}".rstrip(".") if abs(value) < 1000 else f"{abs(value):,.0f}"
    return f"−{text}" if value < 0 else text


_SHARED = {
    "marked": marked, "snippet": snippet, "token": token, "page_name": page_name,
    "percent": percent, "number": number, "text_of": text_of,
}  # fmt: skip
