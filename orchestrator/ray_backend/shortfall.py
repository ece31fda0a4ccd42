"""A cluster that has no room for a run: what is asked, what is there, and what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orchestrator.planning.preflight import human_bytes

Resources = Mapping[str, float]  # as Ray names them


class Crew(NamedTuple):
    """How many processes of each kind."""

    cells: int
    producers: int = 0


def shortfall(
    crew: Crew,
    bundles: Sequence[Resources],
    nodes: Sequence[Resources],
    there: Resources,
    free: Resources,
    waited_s: float,
) -> str:
    """Bundles, each of which needs one node, against what all nodes have together and what is free
    of it."""
    names = [name for name in ("CPU", "GPU", "memory") if bundles[0].get(name)]
    has = ", ".join(f"{_number(name, free)} of {_amount(name, there)} free" for name in names)
    where = "its only node has" if len(nodes) == 1 else f"its {len(nodes)} nodes together have"
    return (
        f"the Ray cluster has no room for {needs(crew, bundles)} (waited {waited_s:.0f} s); "
        f"{where} {has}. {remedy(crew, bundles, nodes)}"
    )


def needs(crew: Crew, bundles: Sequence[Resources]) -> str:
    """Who they are, and what they ask for."""
    cells, producers = crew
    who = _counted("cell", cells) + (f" and {_counted('producer', producers)}" if producers else "")
    asked = Counter(map(_words, bundles))
    if len(bundles) == 1:
        return (
            f"{who}, which {'needs' if sum(crew) == 1 else 'need'} {next(iter(asked))} on one node"
        )
    listed = " and ".join(f"{count} × ({bundle})" for bundle, count in asked.items())
    return f"{who}, which need {listed}, each on one node"


def remedy(crew: Crew, bundles: Sequence[Resources], nodes: Sequence[Resources]) -> str:
    """What the user can do, as a sentence without its full stop."""
    cells, producers = crew
    ways = []
    if _fit(bundles, nodes):
        ways.append("wait for the other jobs that use the rest, or end them")
    else:
        ways.append("add nodes" if len(bundles) > 1 else "add a larger node")
    if cells > 1:
        ways.append("lower resources.cells")
    if producers > 1:
        ways.append("lower resources.producers")
    if producers and len(bundles) > 1:
        ways.append("set resources.topology: fused")
    if bundles[0]["CPU"] > 1:
        ways.append("for a run that has not begun, lower resources.threads")
    text = ", or ".join(ways)
    return text[0].upper() + text[1:]


def _fit(bundles: Sequence[Resources], nodes: Sequence[Resources]) -> bool:
    """Whether empty nodes would have room, each bundle on the first that has."""
    left = [dict(node) for node in nodes]
    for bundle in bundles:
        node = next((n for n in left if all(n.get(k, 0) >= v for k, v in bundle.items())), None)
        if node is None:
            return False
        for name, amount in bundle.items():
            node[name] = node.get(name, 0) - amount
    return True


def _counted(word: str, count: int) -> str:
    return f"a {word}" if count == 1 else f"{count} {word}s"


def _words(bundle: Resources) -> str:
    return " + ".join(_amount(name, bundle) for name in bundle if bundle[name])


def _amount(name: str, of: Resources) -> str:
    return f"{_number(name, of)} {name}"


def _number(name: str, of: Resources) -> str:
    count = of.get(name, 0)
    return human_bytes(count) if name == "memory" else f"{count:g}"
