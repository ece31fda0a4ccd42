"""What a run folder could do without, and its deletion. Nothing is deleted that was not listed.

Never weights, metrics, evaluations, records, the holdout, `wandb/`; nothing of a run that somebody
works on; nothing that lies behind a symbolic link. What is deleted goes in an order that a kill
leaves as a state which the next invocation knows.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtc_core.atomic import remove_folder
from mtc_core.checkpoint import DIGESTS, REFERENCE, WEIGHTS, checkpoint_paths, file_digest
from mtc_core.tokens.token_store import END
from orchestrator.registry.index import register
from orchestrator.registry.small_files import Damaged, read_object
from orchestrator.registry.verify import REDO
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.folder import RunFolder
from orchestrator.run_folder.lock import run_lock
from orchestrator.run_folder.transcoder_folder import TranscoderFolder
from orchestrator.status_file import read_status

CHECKPOINTS, TOKENS, MEASUREMENTS, LEFTOVERS = "checkpoints", "tokens", "measurements", "leftovers"
COSTS = {
    CHECKPOINTS: "of transcoders that are done: nothing continues from them, but a final/ that is "
    "lost would have to be trained anew from its start",
    TOKENS: "training text of runs whose transcoders are all done (the holdout stays): should one "
    "be trained anew, the text is read and tokenized again",
    MEASUREMENTS: "totals of an eval that was interrupted: it would begin anew",
    LEFTOVERS: "half-written files of processes that were killed: nobody reads them",
}
QUIET_S = 3600.0  # what eval and readers have just written, who take no lock, is theirs
_TEMPORARY = re.compile(r"\..+\.\d+(?:\.old)?\.tmp|\.status\.json\.tmp")
_WINDOW = re.compile(r"window-(\d{5,})\.(?:json|ids\.npy|rows\.npy)")


@dataclass(frozen=True, slots=True)
class Rubbish:
    """paths: relative to the run, in the order of their deletion; files and folders."""

    run: str
    kind: str
    paths: tuple[str, ...]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "run": self.run, "kind": self.kind, "bytes": self.bytes, "costs": COSTS[self.kind],
            "paths": list(self.paths),
        }  # fmt: skip


def find_rubbish(run: Path, kinds: Sequence[str]) -> list[Rubbish]:
    """What of these kinds a run could do without. Raises ConfigError where it cannot be read."""
    folder = RunFolder(run.parent, run.name)
    recorded = folder.recorded()  # of a run that is damaged, who knows what is needed
    found: list[Rubbish] = []
    if recorded is None:
        return found
    specs = list(recorded["specs"])
    with disk_errors(run, "read"):
        for kind, find in _FINDERS.items():
            paths = [path for path in find(folder, specs) if _inside(run, path)]
            if paths and kind in kinds:
                relative = tuple(str(path.relative_to(run)) for path in paths)
                found.append(Rubbish(str(run), kind, relative, sum(map(_bytes, paths))))
    return found


def worked_on(run: Path) -> bool:
    """Whether a driver is at work there, as far as can be told without the lock."""
    status = read_status(run)
    return status is not None and status["state"] == "running"


@dataclass(slots=True)
class Collected:
    """gone: what was deleted, also where the disk refused midway. kept: a sentence for each thing
    that had to stay."""

    gone: list[Rubbish] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def count(self, one: Rubbish, relative: str, size: int) -> None:
        last = self.gone[-1] if self.gone else None
        if last is None or last.kind != one.kind:
            self.gone.append(Rubbish(one.run, one.kind, (relative,), size))
        else:
            paths = (*last.paths, relative)
            self.gone[-1] = Rubbish(one.run, one.kind, paths, last.bytes + size)


def collect(run: Path, listed: Sequence[Rubbish], into: Collected) -> None:
    """Delete, under the run's lock, what was listed and is still rubbish. Raises ConfigError if
    somebody works there, or the disk refuses."""
    with run_lock(run) as lost, disk_errors(run, "written"):
        still = {
            one.kind: set(one.paths) for one in find_rubbish(run, [one.kind for one in listed])
        }
        faults = _faults(run) if {CHECKPOINTS, TOKENS} & still.keys() else {}
        for one in listed:
            for relative in one.paths:
                path = run / relative
                if lost.is_set() or relative not in still.get(one.kind, ()):
                    continue
                if why := _needed(one.kind, path, faults):
                    if why not in into.kept:
                        into.kept.append(why)
                    continue
                size = _bytes(path)
                _delete(path)
                into.count(one, relative, size)
        register(run)


def _needed(kind: str, path: Path, faults: Mapping[Path, str]) -> str:
    """Why something stays: weights that are not to be relied on may have to be made again."""
    transcoder = path.parents[1]
    if kind == CHECKPOINTS and transcoder in faults:
        return f"{transcoder / 'checkpoints'} stays: {faults[transcoder]}"
    if kind == TOKENS and faults:
        return f"{path.parent} stays: {next(iter(faults.values()))}"
    return ""


def _faults(run: Path) -> dict[Path, str]:
    """By folder of a transcoder, what is wrong with its saved weights."""
    finals = sorted((run / "transcoders").glob("*/final"))
    found = {final.parent: _final_fault(final) for final in finals}
    return {path: fault for path, fault in found.items() if fault}


def _delete(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif _is_temporary(path.name):
        shutil.rmtree(path)
    else:
        remove_folder(path)


def _checkpoints(folder: RunFolder, specs: Sequence[str]) -> Iterator[Path]:
    for one in map(folder.transcoder, specs):
        if one.final.is_dir():
            yield from checkpoint_paths(one.checkpoints)


def _tokens(folder: RunFolder, specs: Sequence[str]) -> Iterator[Path]:
    """The mark that the text has ended first, then windows from the last: what a kill leaves is
    what a writer leaves that was killed."""
    if not all(folder.transcoder(id).final.is_dir() for id in specs):
        return
    names = os.listdir(folder.tokens) if folder.tokens.is_dir() else []
    windows = [(int(match[1]), name) for name in names if (match := _WINDOW.fullmatch(name))]
    if windows and END in names:
        yield folder.tokens / END
    for _, name in sorted(windows, key=lambda one: (-one[0], not one[1].endswith(".json"), one[1])):
        yield folder.tokens / name


def _measurements(folder: RunFolder, _: Sequence[str]) -> Iterator[Path]:
    for path in sorted(folder.evaluations.glob("*/*.progress.safetensors")):
        if _quiet(path):
            yield path


def _leftovers(folder: RunFolder, _: Sequence[str]) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder.path):
        at = Path(parent)
        found = [name for name in [*folders, *files] if _is_temporary(name)]
        yield from (at / name for name in sorted(found) if _quiet(at / name))
        # W&B's files are its own; what is listed whole is not looked into.
        folders[:] = sorted(
            name
            for name in folders
            if name not in found and not (at == folder.path and name == "wandb")
        )


def _is_temporary(name: str) -> bool:
    """Whether a writer of ours calls something so while it is half written: atomic.py, and
    status_file.py. What else ends in .tmp may be somebody's own."""
    return _TEMPORARY.fullmatch(name) is not None


def _quiet(path: Path) -> bool:
    with suppress(FileNotFoundError):
        newest = max(entry.lstat().st_mtime for entry in [path, *path.rglob("*")])
        return time.time() - newest > QUIET_S
    return False


def _inside(run: Path, path: Path) -> bool:
    """Whether it lies in the run folder itself, and not behind a link that leads elsewhere."""
    parts = path.relative_to(run).parts
    steps = [run.joinpath(*parts[: count + 1]) for count in range(len(parts))]
    return not any(step.is_symlink() for step in steps)


def _bytes(path: Path) -> int:
    with suppress(FileNotFoundError):  # its writer drops it just now
        return sum(
            entry.lstat().st_size for entry in [path, *path.rglob("*")] if not entry.is_dir()
        )
    return 0


def _final_fault(final: Path) -> str | None:
    """Why saved weights, or what must lie with them, are not to be relied on: the checkpoints
    could renew them."""
    try:
        digests = read_object(final / DIGESTS) or {}
        if WEIGHTS not in digests:
            return f"{final} has no {DIGESTS} that vouches for its weights"
        wrong = [name for name, digest in digests.items() if file_digest(final / name) != digest]
        evaluation = read_object(TranscoderFolder(final.parent).evaluation)
    except (Damaged, OSError) as error:
        return f"{final} cannot be verified ({error})"
    if wrong:
        return f"{final / wrong[0]} is damaged; {REDO}"
    missing = [] if REFERENCE in digests else [final / REFERENCE]
    missing += [] if evaluation else [TranscoderFolder(final.parent).evaluation]
    return f"{missing[0]} is missing; {REDO}" if missing else None


_FINDERS: dict[str, Callable[[RunFolder, Sequence[str]], Iterator[Path]]] = {
    CHECKPOINTS: _checkpoints,
    TOKENS: _tokens,
    MEASUREMENTS: _measurements,
    LEFTOVERS: _leftovers,
}
