"""Each invocation of `run` leaves NNNN.begin.json at its start and NNNN.end.json at its end.

Written once and never replaced. A begin without an end is a driver that still runs, or was killed.
Called by the holder of the run lock, so that no two take the same number.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtc_core.atomic import remove_leftovers, write_json_atomic
from orchestrator.registry.rows import InvocationRow
from orchestrator.registry.small_files import Notes, as_json, number, read_object, text
from orchestrator.run_folder.disk_errors import disk_errors

FOLDER = "invocations"
VERSIONS = ("mtc-orchestrator", "torch", "ray", "transformers")
_NAME = re.compile(r"(\d{4,})\.(?:begin|end)\.json")
_log = logging.getLogger("mtc")


@dataclass(frozen=True, slots=True)
class Invocation:
    """An invocation that has begun."""

    run: Path
    number: int

    @property
    def witness(self) -> Path:
        """A file that no other invocation wrote."""
        return _path(self.run, self.number, "begin")

    def end(self, facts: Mapping[str, Any]) -> None:
        """Record how it ended; once. facts (JSON-able): `exit_code`, `outcome` (a word), `step`,
        `rows_trained`, and whatever else there is to keep.

        A disk that refuses is only logged: what was trained is safe, and must be told as such."""
        path = _path(self.run, self.number, "end")
        assert not path.exists(), "an invocation ends once"
        try:
            write_json_atomic(path, {"number": self.number, "ended": time.time(), **facts})
        except OSError as error:
            _log.warning("%s cannot be written: %s", path, error)


def begin(run: Path, facts: Mapping[str, Any]) -> Invocation:
    """Record that an invocation works on a run, whose lock it holds. facts (JSON-able): `backend`,
    `cells` (how many), `manifest` (its path), `overrides`, and whatever else there is to keep.

    Raises ConfigError where the disk refuses."""
    with disk_errors(run / FOLDER, "written"):
        (run / FOLDER).mkdir(exist_ok=True)
        remove_leftovers(run / FOLDER)
        number = max(_numbers(run), default=0) + 1
        always = {
            "number": number,
            "began": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "versions": _versions(),
        }
        write_json_atomic(_path(run, number, "begin"), {**always, **facts})
    return Invocation(run, number)


def read_invocations(run: Path) -> Iterator[InvocationRow]:
    """All of them, in order. Raises OSError."""
    for invocation in sorted(_numbers(run)):
        notes, first, last = Notes(run / FOLDER), None, None
        with notes.of_damage():
            first = read_object(path := _path(run, invocation, "begin"))
            if first is None:
                notes.add(f"{path.name} is missing")
        with notes.of_damage():
            last = read_object(_path(run, invocation, "end"))
        yield _row(invocation, first, last, notes)


def _row(
    invocation: int, first: dict[str, Any] | None, last: dict[str, Any] | None, notes: Notes
) -> InvocationRow:
    at_begin, at_end = first or {}, last or {}
    return InvocationRow(
        number=invocation,
        began=number(at_begin.get("began")),
        ended=number(at_end.get("ended")),
        host=text(at_begin.get("host")),
        pid=number(at_begin.get("pid")),
        backend=text(at_begin.get("backend")),
        cells=number(at_begin.get("cells")),
        exit_code=number(at_end.get("exit_code")),
        outcome=text(at_end.get("outcome")),
        step=number(at_end.get("step")),
        rows_trained=number(at_end.get("rows_trained")),
        at_begin=as_json(first),
        at_end=as_json(last),
        damaged=notes.text,
    )


def _numbers(run: Path) -> set[int]:
    try:
        names = os.listdir(run / FOLDER)
    except FileNotFoundError:
        return set()
    return {int(match[1]) for match in map(_NAME.fullmatch, names) if match}


def _path(run: Path, number: int, end: str) -> Path:
    return run / FOLDER / f"{number:04d}.{end}.json"


def _versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
