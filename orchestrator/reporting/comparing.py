"""Several runs on one page: what was asked of each, what came of it, and what it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from json import dumps
from typing import Any

from mtc_core.errors import ConfigError
from orchestrator.comparing.settings import apart, in_the_way, read_settings
from orchestrator.pages.render import render
from orchestrator.reporting.figures import comparison
from orchestrator.reporting.figures.comparison import Runs
from orchestrator.reporting.gather import Gathered
from orchestrator.reporting.html_tables import Row, Table, when
from orchestrator.reporting.page import plotly_js
from orchestrator.reporting.verdicts import banner, seconds_of, tokens_per_second
from orchestrator.run_folder.folder import leaves
from orchestrator.view import clock

ASKED = ("seed", "init_from", "model", "data", "train", "defaults", "transcoders", "resources")
Best = Callable[[list[float]], float]
Figure = Callable[[Gathered], float | None]


def compare(found: Sequence[Gathered]) -> str:
    """One file of HTML. Raises ConfigError for a run given twice."""
    runs = _named(found)
    in_way = _in_the_way(found)
    return render(
        "comparison.html",
        title=" · ".join(runs),
        when=when(max(run.at for run in found)),
        runs=runs,
        colours=comparison.colours(runs),
        places={name: str(run.path.absolute()) for name, run in runs.items()},
        in_the_way=in_way,
        pairs=len(_shared(runs)),
        whole=_same_suites(runs),
        figures=_figures(runs, comparable=not in_way),
        asked=_asked(runs),
        by_layer=comparison.fvu_by_layer(runs),
        pareto=comparison.fvu_against_l0(runs),
        curves=comparison.curves(runs),
        fvu=_fvu(runs),
        plotly=plotly_js(),
    )


def _named(found: Sequence[Gathered]) -> dict[str, Gathered]:
    """By name; with as much of the path as tells a run from others of its name."""
    paths = [run.path.resolve() for run in found]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise ConfigError(f"{twice} is given twice; name each run once")
    names = [run.name for run in found]
    for depth in range(1, max(len(path.parts) for path in paths)):
        shared = {name for name in names if names.count(name) > 1}
        tails = ["/".join(path.parts[-depth - 1 :]) for path in paths]
        names = [tail if name in shared else name for name, tail in zip(names, tails, strict=True)]
    return dict(zip(names, found, strict=True))


def _in_the_way(found: Sequence[Gathered]) -> list[str]:
    """What differs and makes figures say nothing about each other, in words."""
    different = apart([read_settings(run.path) for run in found])
    return [f"{name} ({' | '.join(dict.fromkeys(different[name]))})"
            for name in in_the_way(different)]  # fmt: skip


def _pairs(run: Gathered) -> set[tuple[str, str]]:
    return {comparison.pair_of(run, id) for id in run.evaluated}


def _shared(runs: Runs) -> set[tuple[str, str]]:
    """Sources and targets of which every run has a transcoder that is done."""
    return set.intersection(*map(_pairs, runs.values()))


def _same_suites(runs: Runs) -> bool:
    """Whether what is said of a whole suite is said of like ones."""
    sites = [sorted(comparison.pair_of(run, id) for id in run.recorded["specs"])
             for run in runs.values()]  # fmt: skip
    return all(_pairs(run) == _shared(runs) for run in runs.values()) and all(
        one == sites[0] for one in sites
    )


def _figures(runs: Runs, comparable: bool) -> Table:
    """A column for each run; a star for the best of a line, where runs can be compared in it."""
    shared, whole = _shared(runs), _same_suites(runs)
    spliced = {_spliced_tokens(run) for run in runs.values()} - {None}
    alike = whole and len(spliced) < 2

    def mean(of: Callable[[Mapping[str, Any]], float]) -> Figure:
        return lambda run: _mean(run, shared, of)

    lines: list[tuple[str, Figure, str, Best | None]] = [
        ("mean FVU", mean(lambda one: one["ordinary"]["fvu"]), "{:.3f}", min),
        ("mean FVU, all rows", mean(lambda one: one["all"]["fvu"]), "{:.3f}", min),
        ("mean FVU, linear map", mean(lambda one: one["ordinary"]["fvu_ridge"]), "{:.3f}", None),
        ("mean L0", mean(lambda one: one["ordinary"]["l0"]), "{:.1f}", None),
        ("mean dead, %", mean(lambda one: 100 * one["dead_share"]), "{:.1f}", min),
        ("CE +, all together, nats", _joint("ce_increase"), "{:.3f}", min if alike else None),
        ("± a standard error", _joint("ce_increase_se"), "{:.3f}", None),
        ("CE recovered, all together", _joint("ce_recovered_zero"), "{:.3f}",
         _nearest_to_1 if alike else None),
        ("KL, all together", _joint("kl"), "{:.3f}", min if alike else None),
        *([("of so many tokens", _spliced_tokens, "{:,.0f}", None)] if len(spliced) > 1 else []),
        ("tokens/s, the whole suite", tokens_per_second, "{:,.0f}", max if whole else None),
    ]  # fmt: skip
    if not comparable:
        lines = [(name, of, form, None) for name, of, form, _ in lines]
    found = list(runs.values())
    measured = [(name, [of(run) for run in found], form, best) for name, of, form, best in lines]
    rows = [
        Row(("state", *(run.state for run in found))),
        Row(("verdict", *(banner(run).headline for run in found))),
        Row(("transcoders", *(str(len(run.rows)) for run in found))),
        *(
            Row((name, *_starred(values, form, best)))
            for name, values, form, best in measured
            if any(value is not None for value in values)
        ),
        Row(("time of all invocations", *map(_time, found))),
    ]  # fmt: skip
    return Table(("", *runs), rows)


def _starred(values: Sequence[float | None], form: str, best: Best | None) -> list[str]:
    known = [value for value in values if value is not None]
    top = best(known) if best and len(set(known)) > 1 else None
    words = ["–" if value is None else form.format(value) for value in values]
    return [
        f"★ {word}" if value is not None and value == top else word
        for word, value in zip(words, values, strict=True)
    ]


def _asked(runs: Runs) -> Table | None:
    """Every key of the manifests, after defaults, that is not the same in all."""
    given = {
        name: dict(leaf for key in ASKED for leaf in leaves(run.recorded.get(key), key))
        for name, run in runs.items()
    }
    keys = list(dict.fromkeys(key for one in given.values() for key in one))
    rows = []
    for key in keys:
        words = [_word(one[key]) if key in one else "–" for one in given.values()]
        if len(set(words)) > 1:
            rows.append(Row((key, *words)))
    return Table(("key", *runs), rows, tuple(runs)) if rows else None


def _fvu(runs: Runs) -> Table:
    """A line for each pair of sites, and what else a sweep has there."""
    sites = comparison.sites_of(runs)
    rows = []
    for pair, label in sites.items():
        cells = []
        for run in runs.values():
            here = [(id, one) for id, one in run.evaluated.items()
                    if comparison.pair_of(run, id) == pair]  # fmt: skip
            cells.append(" ".join(f"{one['ordinary']['fvu']:.3f}" for _, one in here) or "–")
        rows.append(Row((label, *cells)))
    return Table(("FVU", *runs), rows)


def _mean(
    run: Gathered, pairs: Set[tuple[str, str]], of: Callable[[Mapping[str, Any]], float]
) -> float | None:
    known = [of(one) for id, one in run.evaluated.items() if comparison.pair_of(run, id) in pairs]
    return sum(known) / len(known) if known else None


def _nearest_to_1(values: Sequence[float]) -> float:
    return min(values, key=lambda value: abs(value - 1))


def _joint(name: str) -> Figure:
    return lambda run: ((run.splice or {}).get("joint") or {}).get(name)


def _spliced_tokens(run: Gathered) -> float | None:
    return run.splice["tokens"] if run.splice else None


def _time(run: Gathered) -> str:
    seconds = seconds_of(run)
    return "–" if seconds is None else clock(seconds)


def _word(value: object) -> str:
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False)
