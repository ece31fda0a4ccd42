"""Does a run folder hold what it claims? Every digest anew, every record read, the index compared.

Needs no lock and deletes nothing. What a working driver takes away meanwhile is no fault.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mtc_core.checkpoint import DIGESTS, FACTS, STATE, checkpoint_paths, file_digest, read_digests
from mtc_core.config import TranscoderSpec
from mtc_core.errors import MtcError
from orchestrator.features.names import ABOUT, LATENTS
from orchestrator.registry.index import NAME
from orchestrator.registry.index_check import index_fault
from orchestrator.registry.invocations import read_invocations
from orchestrator.registry.progress import progress_path
from orchestrator.registry.small_files import Damaged, parse_object, read_object
from orchestrator.registry.transcoder_facts import CONFIG, WEIGHTS
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.folder import RunFolder
from orchestrator.run_folder.transcoder_folder import TranscoderFolder

REDO = "delete that final/ and run the manifest again: it writes the same bits"
GO_BACK = "delete that checkpoint: a continued run uses the one before"
DROP = "delete the line"
RESTORE = "restore it from a copy"
FIND_AGAIN = "delete that folder: `mtc-orchestrate features` writes it again"
T = TypeVar("T")
REWRITE = "run the manifest again: it writes the file anew"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong: where, what, and the way out."""

    path: str
    what: str
    remedy: str


@dataclass(slots=True)
class Findings:
    """files: how many are sound. leftovers: of killed writers; no fault, the next one removes
    them."""

    files: int = 0
    faults: list[Fault] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def verify(run: Path, progress: Callable[[str], None] = lambda _: None) -> Findings:
    """Read all that a run folder holds, but tokens: they carry no digests, and are checked by
    whoever trains on them. progress is told of each transcoder. Raises ConfigError where a folder
    cannot be read."""
    with disk_errors(run, "read"):
        return _Verification(RunFolder(run.parent, run.name)).of_run(progress)


class _Verification:
    """Goes through one run folder and collects what it finds."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.found = folder, Findings()

    def of_run(self, progress: Callable[[str], None]) -> Findings:
        specs = self._specs()
        self._object(self.folder.plan, REWRITE)
        self._invocations()
        for id in dict.fromkeys([*(specs or {}), *self._listed(self.folder.transcoders, _visible)]):
            progress(id)
            self._transcoder(id, self.folder.transcoder(id), specs)
        self._features()
        self._index(specs)
        self.found.leftovers += _leftovers(self.folder.path)
        return self.found

    def _index(self, specs: Mapping[str, Any] | None) -> None:
        path = self.folder.path / NAME
        try:
            what = index_fault(self.folder.path) if specs is not None else None
        except (MtcError, OSError) as error:
            if self.found.faults:  # the file that it is about was told; the index is neither
                return
            what = f"cannot be compared with the files: {error}"
        if what:
            again = f"run `mtc-orchestrate registry rebuild {self.folder.path}`"
            self._fault(path, what, again)
        elif path.exists():
            self.found.files += 1

    def _specs(self) -> dict[str, Any] | None:
        """resolved.json's, by id; None if it is damaged."""
        try:
            specs = (self.folder.recorded() or {})["specs"]
            for id, spec in specs.items():
                if (own := TranscoderSpec.from_dict(spec).id) != id:
                    self._fault(self.folder.resolved, f"describes {own} as {id}", RESTORE)
        except (MtcError, KeyError, TypeError, AttributeError) as error:
            self._fault(self.folder.resolved, str(error), RESTORE)
            return None
        self.found.files += 1
        return specs

    def _invocations(self) -> None:
        for row in read_invocations(self.folder.path):
            if row.damaged:
                path = self.folder.path / "invocations"
                self._fault(path, row.damaged, "delete the file; nothing needs it")
            self.found.files += sum(text is not None for text in (row.at_begin, row.at_end))
            path = progress_path(self.folder.path, row.number)
            self._lines(path, complete=row.at_end is not None)

    def _transcoder(
        self, id: str, folder: TranscoderFolder, specs: Mapping[str, Any] | None
    ) -> None:
        if specs is not None and id not in specs:
            self._fault(folder.path, "is no transcoder of resolved.json", "move it elsewhere")
            return
        config = self._object(folder.config, RESTORE)
        if specs is not None and config not in (None, {"id": id, **specs[id]}):
            self._fault(folder.config, "differs from its spec in resolved.json", RESTORE)
        metrics_bytes = self._checkpoints(folder)
        done, failed = folder.final.is_dir(), folder.failed.exists()
        if done:
            self._final(id, folder)
        elif failed:
            self._object(folder.failed, "delete it: a continued run trains this transcoder on")
        self._metrics(folder.metrics, metrics_bytes, complete=done or failed)

    def _features(self) -> None:
        for path in sorted(self.folder.features.glob(f"[!.]*/[!.]*/{ABOUT}")):
            self._object(path, FIND_AGAIN)
            self._lines(path.with_name(LATENTS), complete=True, remedy=FIND_AGAIN)

    def _checkpoints(self, folder: TranscoderFolder) -> int:
        """How many bytes of metrics.jsonl the newest sound one counts on."""
        counted = 0
        for path in self._listed(folder.checkpoints, checkpoint_paths):
            self._digests(path, {STATE, FACTS}, GO_BACK)
            try:
                counted = (read_object(path / FACTS) or {}).get("metrics_bytes", counted)
            except (Damaged, OSError):  # its digest has told
                continue
        return counted

    def _final(self, id: str, folder: TranscoderFolder) -> None:
        if not folder.evaluation.exists():
            self._fault(folder.evaluation, "is missing, and its transcoder is done", REDO)
        evaluation = self._object(folder.evaluation, REDO)
        if evaluation is not None and evaluation.get("id") != id:
            self._fault(folder.evaluation, f"is of {evaluation.get('id')}", REDO)
        self._digests(folder.final, {CONFIG, WEIGHTS}, REDO)

    def _digests(self, folder: Path, needed: set[str], remedy: str) -> None:
        """Every file of a folder against its sha256.json, unless the folder has just gone."""
        digests = self._object(folder / DIGESTS, remedy)
        if digests is None:
            if folder.is_dir() and not (folder / DIGESTS).exists():
                self._fault(folder, f"has no {DIGESTS}, so that nothing vouches for it", remedy)
            return
        self._form(folder / DIGESTS, remedy)
        there = self._listed(folder, _visible)
        for name in sorted({*needed, *digests, *there} - {DIGESTS}):
            try:
                if file_digest(folder / name) == digests.get(name):
                    self.found.files += 1
                elif name in digests:
                    self._fault(folder / name, "is damaged: its sha256 differs", remedy)
                else:
                    self._fault(folder / name, f"is not in {DIGESTS}", remedy)
            except FileNotFoundError:
                if folder.is_dir():
                    self._fault(folder / name, "is missing", remedy)
            except OSError as error:
                self._fault(folder / name, f"cannot be read: {error.strerror}", remedy)

    def _form(self, digests: Path, remedy: str) -> None:
        """Of a digest file that can be read: are its bytes those that were written?"""
        with suppress(FileNotFoundError):  # it has just gone
            try:
                read_digests(digests)
            except ValueError as error:
                self._fault(digests, f"is damaged: {error}", remedy)

    def _metrics(self, path: Path, counted: int, *, complete: bool) -> None:
        """counted: bytes that a checkpoint, read before, relies on. complete: no line is just
        being written."""
        content = b""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            pass  # counted bytes that are not there are told below
        except OSError as error:
            self._fault(path, f"cannot be read: {error.strerror}", RESTORE)
            return
        if len(content) < counted:
            what = f"has {len(content)} bytes; its newest checkpoint was made with {counted}"
            self._fault(path, what, f"{RESTORE}; training needs it not")
        self._lines_of(path, content, complete=complete)

    def _lines(self, path: Path, *, complete: bool, remedy: str = DROP) -> None:
        """JSON lines that nobody counts on."""
        try:
            self._lines_of(path, path.read_bytes(), complete=complete, remedy=remedy)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._fault(path, f"cannot be read: {error.strerror}", RESTORE)

    def _lines_of(self, path: Path, content: bytes, *, complete: bool, remedy: str = DROP) -> None:
        *lines, tail = content.split(b"\n")
        faults = len(self.found.faults)
        for number, line in enumerate([*lines, tail] if complete and tail else lines, start=1):
            try:
                parse_object(line, f"line {number}")
            except Damaged as error:
                self._fault(path, str(error), remedy)
        self.found.files += bool(content) and len(self.found.faults) == faults

    def _object(self, path: Path, remedy: str) -> dict[str, Any] | None:
        """A JSON file, if it is there and sound."""
        try:
            content = read_object(path)
        except Damaged as error:
            self._fault(path, str(error).removeprefix(f"{path} "), remedy)
            return None
        except OSError as error:
            self._fault(path, f"cannot be read: {error.strerror}", remedy)
            return None
        self.found.files += content is not None
        return content

    def _listed(self, folder: Path, names: Callable[[Path], list[T]]) -> list[T]:
        """What lies in a folder; one that cannot be looked into is a fault, and no end."""
        try:
            return names(folder)
        except OSError as error:
            self._fault(folder, f"cannot be read: {error.strerror}", RESTORE)
            return []

    def _fault(self, path: Path, what: str, remedy: str) -> None:
        self.found.faults.append(Fault(str(path), what, remedy))


def _leftovers(run: Path) -> list[str]:
    """Temporary files and folders; os.walk passes over what vanishes meanwhile."""
    return sorted(
        os.path.join(folder, name)
        for folder, folders, files in os.walk(run)
        for name in [*folders, *files]
        if name.startswith(".") and name.endswith(".tmp")
    )


def _visible(folder: Path) -> list[str]:
    """Names in a folder, but for hidden ones: temporary files and locks. None if it has gone."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        return []
