"""Features on disk: a folder for each transcoder, whole or not there, and a page for all.

    index.html                   the transcoders
    <id>/features.json           what was asked for, and how much was found
    <id>/latents.jsonl           a line for each latent: records.py
    <id>/index.html              a row for each latent
    <id>/latents-0050.html       latents 50 to 99

Without --out it is <run>/features/<text>/, where <text> is named as in `evaluations/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtc_core.atomic import new_folder, write_bytes_atomic, write_json_atomic
from mtc_core.config import TranscoderSpec
from mtc_core.errors import ConfigError
from orchestrator.evaluating.texts import EvaluationText
from orchestrator.features.names import ABOUT, INDEX, LATENTS
from orchestrator.features.pages import PAGE, latents_page, page_name, suite_page, table_page
from orchestrator.features.records import Record, Records
from orchestrator.run_folder.disk_errors import disk_errors

VERSION = 1  # of what these files hold: those of another are written again


class Written:
    """Of one text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, id: str) -> dict[str, Any] | None:
        """features.json of a transcoder; None if there is none, or one of another version."""
        path = self.folder / id / ABOUT
        try:
            with disk_errors(path, "read"):
                found = json.loads(path.read_bytes()) if path.exists() else None
        except ValueError:
            return None
        return found if isinstance(found, dict) and found.get("version") == VERSION else None

    def done(self, id: str, request: Mapping[str, Any]) -> bool:
        """Whether the very same is there."""
        found = self.read(id)
        return found is not None and all(found.get(key) == request[key] for key in request)

    def check_writable(self, ids: Iterable[str]) -> None:
        """Before minutes are spent on it. Raises ConfigError."""
        probe = self.folder / ".probe"
        with disk_errors(self.folder, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        for id in ids:
            if (self.folder / id).exists() and not (self.folder / id / ABOUT).exists():
                raise ConfigError(
                    f"{self.folder / id} is there and holds no {ABOUT}, so it is not ours to "
                    "replace; choose another --out, or move it away"
                )
        index = self.folder / INDEX
        if index.exists() and not any(self.folder.glob(f"*/{ABOUT}")):
            raise ConfigError(
                f"{index} is there without features beside it, so it is not ours to replace; "
                "choose another --out, or move it away"
            )

    def write(
        self,
        id: str,
        request: Mapping[str, Any],
        text: EvaluationText,
        records: Records,
        spec: TranscoderSpec,
        extreme_rows: int | None = None,
    ) -> None:
        """The folder of one transcoder. extreme_rows: left out."""
        about = {
            "version": VERSION,
            "id": id,
            **request,
            "text": text.to_dict(),
            "source": str(spec.source),
            "target": str(spec.target),
            "group_sizes": list(spec.group_sizes),
            "k": spec.k,
            "rows": records.rows,
            "extreme_rows": extreme_rows,
            "alive": records.alive,
            "with_parent": sum(parent >= 0 for parent in records.parents),
            "no_tokens": records.no_tokens or None,
        }
        with disk_errors(self.folder, "written"), new_folder(self.folder / id) as temporary:
            rows, has_page = [], _has_page(records)
            with open(temporary / LATENTS, "w", encoding="utf-8") as lines:
                for page in _pages(records):
                    for record in page:
                        lines.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
                    on = [record for record in page if record["fired"]]
                    if on:
                        name = page_name(page[0]["latent"])
                        html = latents_page(about, on, has_page)
                        (temporary / name).write_text(html, encoding="utf-8")
                    rows += page
            html = table_page(about, rows)
            (temporary / INDEX).write_text(html, encoding="utf-8")
            write_json_atomic(temporary / ABOUT, about)

    def write_suite(self, run: str, model: str) -> None:
        """The page for all transcoders that are there."""
        found = sorted(path.parent.name for path in self.folder.glob(f"*/{ABOUT}"))
        abouts = [about for id in found if (about := self.read(id))]
        html = suite_page(run, model, abouts)
        with disk_errors(self.folder, "written"):
            write_bytes_atomic(self.folder / INDEX, html.encode())


def _pages(records: Records) -> Iterator[list[Record]]:
    page: list[Record] = []
    for record in records:
        page.append(record)
        if len(page) == PAGE or record["latent"] == len(records) - 1:
            yield page
            page = []


def _has_page(records: Records) -> frozenset[int]:
    return frozenset(latent for latent, fired in enumerate(records.fired) if fired)
