"""Send a suite: its own format or another tool's, with a model card, to the Hub or to W&B."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtc_core.atomic import write_bytes_atomic, write_json_atomic
from mtc_core.checkpoint import CONFIG, DIGESTS, file_digest
from mtc_core.errors import ConfigError, ExportError, MtcError
from mtc_core.export.exporting import FORMATS, Export
from mtc_core.hub import HubAddress, push_folder
from mtc_core.wandb_artifacts import parse_project, push_wandb
from orchestrator.evaluating.listener import Listener
from orchestrator.evaluating.subject import Subject
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.sharing.card import card
from orchestrator.sharing.chosen import choose, facts_of, load_chosen
from orchestrator.sharing.exporting import export_run
from orchestrator.sharing.known import data_of, model_of, without_places
from orchestrator.summary import read_ended

HUB, WANDB = "hf://", "wandb://"
NATIVE = """\
```python
from mtc_core import MatryoshkaTranscoder, load_suite

tc = {one}
suite = {all}  # id -> transcoder
```
"""


def push_run(
    subject: Subject,
    address: str,
    only: Sequence[str],
    format: str | None,
    private: bool,
    model_name: str | None,
    listener: Listener,
) -> str:
    """Where it is now. Raises MtcError; the address is looked at before anything is prepared."""
    to_wandb = address.startswith(WANDB)
    if to_wandb and (format or private):
        raise ConfigError("--format and --private are for hf:// addresses")
    if to_wandb:
        parse_project(address.removeprefix(WANDB))
    elif not address.startswith(HUB):
        raise ConfigError(f"{address}: write hf://org/name, or wandb://[entity/]project")
    else:
        HubAddress.parse(address)
    ids = choose(subject, only)
    with tempfile.TemporaryDirectory(prefix="mtc-push-") as scratch:
        folder = Path(scratch) / "suite"
        with disk_errors(folder, "written"):
            if format:
                export_run(subject, format, folder, only, model_name, listener, sent=True)
            else:
                _prepare(subject, ids, folder, address, model_name)
        listener.progress(f"sending to {address}", 0.0, None)
        name = subject.manifest.name
        if to_wandb:
            project = address.removeprefix(WANDB)
            return push_wandb(folder, project, name, _facts(subject, ids))
        message = f"{name}: {len(ids)} transcoders of {model_of(subject)}"
        return push_folder(folder, address, private=private, message=message)


def _prepare(
    subject: Subject, ids: Sequence[str], folder: Path, address: str, model_name: str | None
) -> None:
    """README.md, suite.json, and each transcoder's own files, linked where they can be."""
    folder.mkdir()
    for id in ids:
        subject.check_files(id)
        shutil.copytree(subject.run.transcoder(id).final, folder / id, copy_function=_link)
        _without_places(subject, folder / id)
    write_json_atomic(folder / "suite.json", _facts(subject, ids))
    how = _how(address, subject.manifest.name, ids[0]) + _other_tools(subject, ids, model_name)
    text = card(subject, ids, "mtc-transcoder", how, model_name)
    write_bytes_atomic(folder / "README.md", text.encode())


def _without_places(subject: Subject, folder: Path) -> None:
    """Nothing of where a transcoder was trained. Files are replaced: the run's own stay. A config
    that its sha256 does not vouch for stays, too, and whoever sends it refuses it."""
    try:
        digests = json.loads((folder / DIGESTS).read_bytes())
        if digests.get(CONFIG) != file_digest(folder / CONFIG):
            return
    except (OSError, ValueError, AttributeError):
        return
    config = json.loads((folder / CONFIG).read_bytes())
    write_json_atomic(folder / CONFIG, without_places(subject, config))
    write_json_atomic(folder / DIGESTS, {**digests, CONFIG: file_digest(folder / CONFIG)})


def _link(source: str, target: str) -> str:
    """A copy takes the room of a whole suite; another disk needs one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _other_tools(subject: Subject, ids: Sequence[str], model_name: str | None) -> str:
    """For every tool whose format can express the suite, how an export is loaded there."""
    try:
        facts = facts_of(subject, model_name or model_of(subject))
    except MtcError:  # the model is not on this machine; the suite is sent all the same
        return ""
    suite, parts = load_chosen(subject, ids), []
    for name in FORMATS:
        with suppress(ExportError):
            how = Export(suite, name, facts).how_to_load("FOLDER")
            parts.append(f"\nExported (`mtc-orchestrate export`) for {name}:\n\n{how}")
    return "".join(parts)


def _how(address: str, name: str, id: str) -> str:
    if address.startswith(WANDB):
        artifact = f"{address.removeprefix(WANDB)}/{name}:latest"
        one = f'MatryoshkaTranscoder.from_wandb("{artifact}", "{id}")'
        every = f'load_suite("wandb://{artifact}")'
    else:
        one = f'MatryoshkaTranscoder.from_pretrained("{address}", "{id}")'
        every = f'load_suite("{address}")'
    return NATIVE.format(one=one, all=every)


def _facts(subject: Subject, ids: Sequence[str]) -> dict[str, Any]:
    """suite.json: what it is, and held-out figures by id."""
    evaluations = {row.id: row.evaluation for row in read_ended(subject.run, ids)}
    return {
        "format": "mtc-suite",
        "format_version": 1,
        "name": subject.manifest.name,
        "model": {
            "name": model_of(subject), "commit": subject.pins["model"]
        },
        "data": data_of(subject),
        "transcoders": {
            id: {"fvu": one["ordinary"]["fvu"], "fvu_all": one["all"]["fvu"],
                 "l0": one["ordinary"]["l0"]} if (one := evaluations[id]) else {}
            for id in ids
        },
    }  # fmt: skip
