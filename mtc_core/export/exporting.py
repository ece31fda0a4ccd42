"""From a suite to a folder that another tool loads: refuse, approximate, label, write.

Every format says which selection it can hold. A transcoder of the other kind is exported as the
nearest one that it can, its *twin*, and labelled with what that costs, measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtc_core.atomic import new_folder, write_json_atomic
from mtc_core.config import Selection
from mtc_core.errors import ExportError
from mtc_core.export.circuit_tracer import CIRCUIT_TRACER
from mtc_core.export.facts import TRAINED, Format, Suite, SuiteFacts
from mtc_core.export.gemma_scope import GEMMA_SCOPE
from mtc_core.export.llamascopium import LLAMASCOPIUM
from mtc_core.export.saelens import SAELENS
from mtc_core.export.sparsify import SPARSIFY
from mtc_core.transcoder import MatryoshkaTranscoder

FORMATS: dict[str, Format] = {
    "circuit-tracer": CIRCUIT_TRACER,
    "saelens": SAELENS,
    "sparsify": SPARSIFY,
    "llamascopium": LLAMASCOPIUM,
    "gemma-scope": GEMMA_SCOPE,
}
RECORD = "export.json"


@dataclass(frozen=True, slots=True)
class Change:
    """What a lossy export does to one transcoder, on held-out rows."""

    l0: tuple[float, float]  # before, after
    fvu: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"L0 {self.l0[0]:.1f} -> {self.l0[1]:.1f}, FVU {self.fvu[0]:.4f} -> {self.fvu[1]:.4f}"
        )


class Export:
    """One suite in one format: first what it comes to, then `write`."""

    def __init__(self, suite: Suite, format: str, facts: SuiteFacts) -> None:
        """Raises ExportError with every reason why the format cannot express the suite."""
        self.format, self.facts, self.suite = format, facts, dict(suite)
        self._format = FORMATS[format]
        if reasons := list(dict.fromkeys(self._format.problems(suite, facts))):
            listed = "".join(f"\n  {reason}" for reason in reasons)
            raise ExportError(f"{format} cannot express this suite:{listed}")
        self.twins = {
            id: _twin(tc, self._format.selection)
            for id, tc in suite.items()
            if tc.spec.selection != self._format.selection
        }

    def write(
        self,
        out: Path,
        changes: Mapping[str, Change] | None = None,
        readme: Callable[[dict[str, Any]], str] | None = None,
    ) -> dict[str, Any]:
        """Write the folder, which appears whole or not at all, and return its record.

        changes: what was measured of each twin. readme: README.md, made of the record. Raises
        ExportError if a change is missing, or if the folder holds anything but an export."""
        out, changes = Path(out).resolve(), changes or {}
        if missing := self.twins.keys() - changes.keys():
            raise ExportError(f"{self.format}: what is lost of {min(missing)} was not measured")
        _refuse_foreign(out)
        lossy = {id: self._label(id, changes) for id in self.suite}
        record: dict[str, Any] = {
            "format": self.format,
            "model": self.facts.model,
            "model_commit": self.facts.commit,
            "transcoders": {id: {"lossy": lossy[id], **_of(changes.get(id))} for id in self.suite},
        }
        with new_folder(out) as folder:
            self._format.write({**self.suite, **self.twins}, self.facts, folder, lossy)
            if readme:
                (folder / "README.md").write_text(readme(record), encoding="utf-8")
            record["files"] = sorted(_files(folder))
            write_json_atomic(folder / RECORD, record)
        return record

    def how_to_load(self, place: str) -> str:
        """Python in Markdown."""
        return self._format.how_to_load.format(
            place=place, id=next(iter(self.suite)), model=self.facts.model
        )

    def _label(self, id: str, changes: Mapping[str, Change]) -> str | None:
        if id not in self.twins:
            return None
        return f"{what_is_lost(self.twins[id])}: {changes[id]}"


def export_suite(
    suite: Suite,
    format: str,
    out: Path | str,
    facts: SuiteFacts,
    changes: Mapping[str, Change] | None = None,
) -> dict[str, Any]:
    """`Export(…).write(…)`, for those who need no look in between. Raises ExportError."""
    return Export(suite, format, facts).write(Path(out), changes)


def what_is_lost(twin: MatryoshkaTranscoder) -> str:
    if twin.spec.selection == "topk":
        return f"lossy, BatchTopK as TopK with k = {twin.spec.k}"
    return "lossy, TopK as a threshold"


def _twin(tc: MatryoshkaTranscoder, selection: Selection) -> MatryoshkaTranscoder:
    """The same weights under the other selection: TopK with the k nearest to the mean L0, or the
    threshold with the same mean L0."""
    k = tc.spec.k
    if selection == "topk":
        k = max(1, round(tc.provenance.get("l0_test") or k))
    twin = MatryoshkaTranscoder(
        replace(tc.spec, selection=selection, k=k),
        dict(tc.state_dict()),
        {**tc.provenance, TRAINED: {"k": tc.spec.k, "trained_with": tc.spec.selection}},
    )
    twin.reference = tc.reference
    return twin


def _of(change: Change | None) -> dict[str, Any]:
    return {} if change is None else {"l0": list(change.l0), "fvu": list(change.fvu)}


def _refuse_foreign(out: Path) -> None:
    """Only an earlier export is replaced, and only if nothing has come to it since."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ExportError(f"{out} is a file; give a folder")
    found = set(_files(out))
    try:
        known = {RECORD, *json.loads((out / RECORD).read_bytes())["files"]} if found else set()
    except (OSError, ValueError, KeyError, TypeError):
        known = set()
    if foreign := sorted(found - known):
        raise ExportError(
            f"{out} holds what is no export of ours ({foreign[0]}), which would be lost; give "
            "another folder, or move it"
        )


def _files(folder: Path) -> Iterator[str]:
    """Of all files and links below a folder, the relative names."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield path.relative_to(folder).as_posix()
