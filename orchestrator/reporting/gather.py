"""Everything that a report tells, read from a run folder: also of a run that still works, has
failed, or was killed. What is not there is empty; what is damaged is left out, and told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mtc_core.errors import ConfigError, MtcError
from orchestrator.evaluating.results import (
    EVALUATIONS,
    QUALITY,
    SPLICE,
    TEST,
    Results,
    finished,
    weights_of,
)
from orchestrator.evaluating.show import spliced_test
from orchestrator.features.names import INDEX
from orchestrator.registry.invocations import read_invocations
from orchestrator.registry.progress import read_progress
from orchestrator.reporting.curve import Lines, read_curve
from orchestrator.reporting.labels import Named, name_all
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.folder import RunFolder
from orchestrator.shapes import NUMBER, Each, Maybe, fault
from orchestrator.status_file import NAME, read_status
from orchestrator.suite import training_seconds
from orchestrator.summary import Ended, read_ended
from orchestrator.verdict import broken_rules

_NUMBER, _COUNT = Maybe(NUMBER, absent=True), Maybe(int, absent=True)
_SECONDS = Maybe(Each(NUMBER), absent=True)
_STAGES = Maybe(Each(Each(NUMBER)), absent=True)
_LIST = Maybe(list, absent=True)
# Of begin.json, end.json and a line of progress.jsonl.
_BEGAN = {"began": _NUMBER, "overrides": _LIST, "versions": Maybe(Each(Maybe(str)), absent=True)}
_ENDED = {"ended": _NUMBER, "step": _COUNT, "rows_trained": _COUNT, "seconds": _SECONDS,
          "stages": _STAGES, "first_step_s": _NUMBER, "replaced": _LIST,
          "forwards": Maybe(Each({"passes": _COUNT}), absent=True)}  # fmt: skip
_DONE_BY = {"at": _NUMBER, "step": _COUNT, "rows_trained": _COUNT, "passes": _COUNT,
            "stages": _STAGES, "resident_bytes": _SECONDS}  # fmt: skip
_STATUS = {"step": _COUNT, "steps": _COUNT}
_DRAWN = {"nonzeros_by_group": [NUMBER], "density_histogram": Each(NUMBER)}


@dataclass(frozen=True, slots=True)
class Invoked:
    """One invocation of `run`: what it wrote as it began and as it ended, and its progress."""

    number: int
    began: Mapping[str, Any]
    ended: Mapping[str, Any]  # empty while it works, or if it was killed
    progress: Lines

    @property
    def rows_trained(self) -> int:
        """Of the slowest cell."""
        last = self.progress[-1] if self.progress else {}
        return int(self.ended.get("rows_trained") or last.get("rows_trained") or 0)

    @property
    def stages(self) -> Mapping[str, Mapping[str, float]]:
        """Seconds by process and stage, as far as they are known."""
        last = self.progress[-1] if self.progress else {}
        return self.ended.get("stages") or last.get("stages") or {}

    @property
    def training_s(self) -> float:
        """Of the slowest cell."""
        if seconds := self.ended.get("seconds"):
            return training_seconds(seconds)
        return max((training_seconds(dict(one)) for one in self.stages.values()), default=0.0)

    @property
    def seconds(self) -> float | None:
        """From its begin to its end, or to its last sign."""
        began = self.began.get("began")
        last = self.progress[-1].get("at") if self.progress else None
        ended = self.ended.get("ended") or last
        return ended - began if began and ended else None


@dataclass(frozen=True, slots=True)
class Gathered:
    """A run at one moment. curves: lines of metrics.jsonl, by id. splice: of the test half, if
    it is of the weights that are there; else splice_problem may say why not. texts: quality.json
    and splice.json of texts of the user's. complaints: what could not be read."""

    path: Path
    at: float
    recorded: Mapping[str, Any]
    status: Mapping[str, Any]
    manifest: str
    plan: Mapping[str, Any]
    rows: tuple[Ended, ...]
    named: Mapping[str, Named]
    curves: Mapping[str, Lines]
    splice: Mapping[str, Any] | None
    splice_problem: str
    texts: tuple[Mapping[str, Any], ...]
    invocations: tuple[Invoked, ...]
    complaints: tuple[str, ...]
    broken: Mapping[str, list[str]] = field(default_factory=dict)
    features: tuple[Path, ...] = ()  # pages of what latents respond to, one for each text

    @property
    def name(self) -> str:
        return str(self.recorded.get("name") or self.path.name)

    @property
    def state(self) -> str:
        """Of the run; `prepared` is one that never got to training."""
        if "state" in self.status:
            return str(self.status["state"])
        if not self.invocations:  # a power cut takes views, status.json too
            ended = all(row.state != "unfinished" for row in self.rows)
            return "done" if ended else "stopped" if self._logged else "prepared"
        last = self.invocations[-1].ended
        done = last.get("outcome") in ("done", "some failed")
        return "done" if done else "stopped" if last else "killed"

    @property
    def step(self) -> int:
        """Of the cell that is furthest behind, as far as that is known."""
        told = [self.status.get("step")]
        for one in self.invocations[-1:]:
            told += [one.ended.get("step"), *(line.get("step") for line in one.progress[-1:])]
        return int(next((step for step in told if step is not None), self._logged))

    @property
    def _logged(self) -> int:
        """Steps done by the last line of a curve: of what is unfinished, if anything of that is."""
        last = [(row.state, self.curves[row.id][-1]["step"] + 1)  # steps are counted from 0
                for row in self.rows if self.curves[row.id]]  # fmt: skip
        unfinished = [step for state, step in last if state == "unfinished"]
        return int(min(unfinished, default=0) or max((step for _, step in last), default=0))

    @property
    def steps(self) -> int:
        train = self.recorded["train"]
        return int(self.status.get("steps") or train["tokens"] // train["batch_tokens"])

    @property
    def evaluated(self) -> dict[str, Mapping[str, Any]]:
        """By id, the held-out figures of all that are done."""
        return {row.id: row.evaluation for row in self.rows if row.evaluation}

    def label(self, id: str) -> str:
        return self.named[id].label


def gather(path: Path) -> Gathered:
    """Raises MtcError where there is no run, or what decides what a run is cannot be read."""
    folder = RunFolder(path.parent, path.name)
    recorded = folder.recorded()
    if recorded is None:  # it was there when the folder was found
        raise ConfigError(f"{path} is just being begun anew; look again in a moment")
    complaints: list[str] = []
    specs = recorded["specs"]
    rows = tuple(
        _drawable(folder, row, complaints) for row in read_ended(folder, list(specs), complaints)
    )
    splice, problem = _spliced(path, complaints)
    with disk_errors(path, "read"):
        return Gathered(
            path=path,
            at=time.time(),
            recorded=recorded,
            status=_status(path, complaints),
            manifest=_text(folder.manifest),
            plan=_object(folder.plan, complaints),
            rows=rows,
            named=name_all(specs),
            curves={id: read_curve(folder.transcoder(id).metrics, complaints) for id in specs},
            splice=splice,
            splice_problem=problem,
            texts=tuple(_texts(path, complaints)),
            invocations=tuple(_invocations(path, complaints)),
            complaints=tuple(complaints),
            broken=broken_rules({row.id: row.evaluation for row in rows if row.evaluation}),
            features=tuple(sorted(folder.features.glob(f"*/{INDEX}"))),
        )


def _drawable(folder: RunFolder, row: Ended, complaints: list[str]) -> Ended:
    """One whose figures lack what only figures need counts as one that has none."""
    ordinary = (row.evaluation or {}).get("ordinary")
    if row.evaluation and (wrong := fault(ordinary, _DRAWN)):
        complaints.append(f"{folder.transcoder(row.id).evaluation} is damaged: ordinary.{wrong}")
        return replace(row, evaluation=None)
    return row


def _status(path: Path, complaints: list[str]) -> Mapping[str, Any]:
    found = read_status(path)
    if wrong := fault(found or {}, _STATUS):
        found = None
    if found is None and (path / NAME).exists():
        complaints.append(f"{path / NAME} is damaged" + (f": {wrong}" if wrong else ""))
    return found or {}


def _spliced(path: Path, complaints: list[str]) -> tuple[dict[str, Any] | None, str]:
    if wrong := Results(path / EVALUATIONS / TEST).damage(SPLICE):
        complaints.append(wrong)
    try:
        return spliced_test(path)
    except MtcError as error:  # weights that cannot be read: the rest can
        complaints.append(str(error))
        return None, ""


def _texts(path: Path, complaints: list[str]) -> Iterator[Mapping[str, Any]]:
    """What was measured of the weights that are there."""
    folders = [one for one in sorted((path / EVALUATIONS).glob("text-*")) if one.is_dir()]
    try:
        weights = weights_of(finished(path / "transcoders")) if folders else {}
    except MtcError as error:
        complaints.append(str(error))
        return
    for folder in folders:
        results = Results(folder)
        complaints += filter(None, map(results.damage, (QUALITY, SPLICE)))
        found = {name: results.read(name) for name in (QUALITY, SPLICE)}
        for name, one in found.items():
            if one and one["weights"] != weights:
                told = f"{folder.name}/{name} is of other transcoders, or of fewer"
                complaints.append(f"{told}; eval --text {one['text']['path']} measures these")
                found[name] = None
        if any(found.values()):
            yield found


def _invocations(path: Path, complaints: list[str]) -> Iterator[Invoked]:
    for row in read_invocations(path):
        if row.damaged:
            complaints.append(f"invocations: {row.damaged}")
        found = {}
        for end, text, shape in (("begin", row.at_begin, _BEGAN), ("end", row.at_end, _ENDED)):
            found[end] = json.loads(text) if text else {}
            if wrong := fault(found[end], shape):
                complaints.append(f"invocations: {row.number:04d}.{end}.json is damaged: {wrong}")
                found[end] = {}
        lines = read_progress(path, row.number)
        whole = [line for line in lines if not fault(line, _DONE_BY)]
        if odd := len(lines) - len(whole):
            told = f"line{'s' * (odd != 1)} of {row.number:04d}.progress.jsonl"
            complaints.append(f"invocations: {odd} {told} damaged")
        yield Invoked(row.number, found["begin"], found["end"], whole)


def _object(path: Path, complaints: list[str]) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {}
    except ValueError as error:
        complaints.append(f"{path.name} is damaged: {error}")
        return {}
    if not isinstance(found, dict):
        complaints.append(f"{path.name} is damaged: it is no object")
        return {}
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
