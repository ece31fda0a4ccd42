"""Transcoders of several runs, or of a sweep, side by side: those of the same source and target
correspond. A series is what one would draw as one: a run, and in a sweep each of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from mtc_core.errors import ConfigError
from orchestrator.comparing.cells import USUAL, Row, as_spec
from orchestrator.comparing.settings import apart, in_the_way, read_settings
from orchestrator.differing import differing

LOWEST = ("fvu", "fvu_all", "dead_share", "ce_increase", "kl")  # is best
COMMON = (
    "model", "dataset", "tokens", "batch_tokens", "extreme", "group_sizes", "k", "lr", "selection",
    "skip", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """rows: of transcoders, corresponding ones together. settings: by run, in words."""

    rows: Sequence[Row]
    settings: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Comparison:
        """Raises ConfigError where there is nothing to compare."""
        if not rows:
            raise ConfigError("no transcoder to compare: the runs hold none of which that holds")
        pairs = dict.fromkeys(map(pair_of, rows))
        place = {pair: number for number, pair in enumerate(pairs)}
        together = sorted(
            rows, key=lambda row: place[pair_of(row)]
        )  # stable: runs keep their order
        paths = dict.fromkeys(row["path"] for row in rows)
        return cls(together, {path: read_settings(Path(path)) for path in paths})

    @cached_property
    def between(self) -> dict[str, dict[str, str]]:
        """Key of the manifest -> path of a run -> word, for what differs between runs."""
        different = apart(list(self.settings.values()))
        return {
            name: dict(zip(self.settings, words, strict=True)) for name, words in different.items()
        }

    @cached_property
    def specs(self) -> dict[str, tuple[str, ...]]:
        """Key of a spec -> a word for each row, for what differs between any two."""
        return differing([as_spec(row) for row in self.rows])

    @cached_property
    def incomparable(self) -> list[str]:
        """What differs and makes their figures say nothing about each other, in words."""
        return [
            f"{name} ({' | '.join(dict.fromkeys(self.between[name].values()))})"
            for name in in_the_way(self.between)
        ]

    @cached_property
    def within(self) -> dict[str, tuple[str, ...]]:
        """Key of a spec -> a word for each row, for what a run sweeps."""
        return {name: words for name, words in self.specs.items() if self._sweeps(words)}

    @cached_property
    def between_series(self) -> dict[str, dict[str, str]]:
        """Short key -> label of a series -> word, for what differs between runs, but for what a run
        sweeps, which is in the label, and what makes them incomparable, which is said above."""
        rows = [self.rows.index(of_one[0]) for of_one in self.series.values()]
        found = {
            name: [words[self.rows[row]["path"]] for row in rows]
            for name, words in self.between.items()
            if name not in in_the_way(self.between)
        }
        for name, words in self.specs.items():
            if name not in self.within:
                found[name] = [words[row] for row in rows]  # seed: of the run and its specs alike
        ends = [name.rpartition(".")[2] for name in found]
        return {
            end if ends.count(end) == 1 else name: dict(zip(self.series, words, strict=True))
            for (name, words), end in zip(found.items(), ends, strict=True)
        }

    @cached_property
    def common(self) -> dict[str, Any]:
        """What all rows share, of what people ask for first."""
        return {
            name: self.rows[0][name]
            for name in COMMON
            if self.rows[0][name] is not None and len({row[name] for row in self.rows}) == 1
        }

    @cached_property
    def series(self) -> dict[str, list[Row]]:
        """Label -> rows: a run, or in a sweep one of its settings."""
        found: dict[str, dict[str, list[Row]]] = {path: {} for path in self.settings}
        for number, row in enumerate(self.rows):
            told = [f"{name} {words[number]}" for name, words in self.within.items()]
            named = [self.names[row["path"]]] if len(self.names) > 1 or not told else []
            found[row["path"]].setdefault(", ".join([*named, *told]), []).append(row)
        return {label: rows for of_run in found.values() for label, rows in of_run.items()}

    @cached_property
    def names(self) -> dict[str, str]:
        """Path -> the run's name, or its path where two have the same."""
        names = [Path(path).name for path in self.settings]
        return {
            path: path if names.count(Path(path).name) > 1 else Path(path).name
            for path in self.settings
        }

    def is_best(self, row: Row, figure: str) -> bool:
        """Whether no corresponding transcoder has a lower figure, and one a higher."""
        if figure not in LOWEST or self.incomparable or row[figure] is None:
            return False
        known = self._known[pair_of(row), figure]
        return row[figure] == min(known) < max(known)

    @cached_property
    def _known(self) -> dict[tuple[tuple[str, str], str], list[float]]:
        found: dict[tuple[tuple[str, str], str], list[float]] = {}
        for row in self.rows:
            for figure in LOWEST:
                if row[figure] is not None:
                    found.setdefault((pair_of(row), figure), []).append(row[figure])
        return found

    def means(self) -> dict[str, dict[str, float | None]]:
        """Label -> means over the pairs of sites that are done in every series; `pairs` says how
        many. None: not measured for all of them."""
        done = (
            {pair_of(row) for row in rows if row["fvu"] is not None}
            for rows in self.series.values()
        )
        shared = set.intersection(*done)
        found: dict[str, dict[str, float | None]] = {}
        for label, rows in self.series.items():
            counted = [row for row in rows if pair_of(row) in shared]
            found[label] = {"pairs": len(shared)}
            for name in USUAL:
                values = [row[name] for row in counted]
                known = bool(values) and None not in values
                found[label][name] = fmean(values) if known else None
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "runs": list(self.settings),
            "comparable": not self.incomparable,
            "in_the_way": self.incomparable,
            "common": self.common,
            "differences": self.between,
            "means": self.means(),
            "transcoders": list(self.rows),
        }

    def _sweeps(self, words: Sequence[str]) -> bool:
        by_run: dict[str, set[str]] = {}
        for row, word in zip(self.rows, words, strict=True):
            by_run.setdefault(row["path"], set()).add(word)
        return any(len(found) > 1 for found in by_run.values())


def pair_of(row: Row) -> tuple[str, str]:
    return row["source"], row["target"]
