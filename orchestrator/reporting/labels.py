"""Short names for the transcoders of a page: what of their ids tells them apart, without the hash.

L03                    a suite of one pair of sites in every layer
L03→L07                pairs across layers
L03 ln1_out→attn_out   several pairs in a layer
L03 · k 64             a sweep
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtc_core.sites import Site
from orchestrator.differing import differing

VARIANTS = 8  # colours that can be told apart


@dataclass(frozen=True, slots=True)
class Named:
    """site: of what it reads and predicts. variant: what else tells it apart; empty where nothing
    does. label: both, for itself alone."""

    site: str
    variant: str
    label: str


def name_all(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Named]:
    """By id, in their order; no two have the same label."""
    sites = dict(zip(specs, _sites(list(specs.values())), strict=True))
    apart = differing(list(specs.values()))
    variants = {
        id: ", ".join(f"{name} {words[n]}" for name, words in apart.items())
        for n, id in enumerate(specs)
    }
    shared = {site for site, count in Counter(sites.values()).items() if count > 1}
    labels = {
        id: f"{site} · {variants[id]}" if site in shared and variants[id] else site
        for id, site in sites.items()
    }
    twice = {label for label, count in Counter(labels.values()).items() if count > 1}
    return {
        id: Named(
            sites[id],
            variants[id],
            f"{label} · {id.rpartition('-')[2]}" if label in twice else label,
        )
        for id, label in labels.items()
    }


def is_grid(named: Mapping[str, Named]) -> bool:
    """Whether a picture can have sites along one axis and variants as colours."""
    cells = {(one.site, one.variant) for one in named.values()}
    sites = {one.site for one in named.values()}
    variants = {one.variant for one in named.values()}
    few = 1 < len(variants) <= VARIANTS
    return few and len(cells) == len(named) > len(sites)


def few(labels: Sequence[str], of: int = 0, shown: int = 4) -> str:
    """`L02, L05 and 3 more`; or `all 26`, where there are no more."""
    if len(labels) == of > shown:
        return f"all {of}"
    more = f" and {len(labels) - shown} more" if len(labels) > shown else ""
    return ", ".join(labels[:shown]) + more


def _sites(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    pairs = [(Site.parse(spec["source"]), Site.parse(spec["target"])) for spec in specs]
    kinds = {tuple(_kind(site) for site in pair) for pair in pairs}
    inside = all(site.layer is not None for pair in pairs for site in pair)
    return [_pair(*pair, alone=len(kinds) == 1 and inside) for pair in pairs]


def _pair(source: Site, target: Site, alone: bool) -> str:
    """alone: the suite has no other kinds of sites, so that layers say it all."""
    if source.layer is None or source.layer != target.layer:
        ends = [_layer(site) if alone else site.name for site in (source, target)]
        return "→".join(ends)
    kinds = "" if alone else f" {_kind(source)}→{_kind(target)}"
    return f"{_layer(source)}{kinds}"


def _layer(site: Site) -> str:
    return site.name.partition(".")[0]


def _kind(site: Site) -> str:
    return site.name if site.layer is None else site.name.partition(".")[2]
