"""Tokens written by a process of its own are those that the driver would have written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mtc_core.errors import DataError
from orchestrator.local_backend import LocalBackend
from orchestrator.manifest import load_manifest
from orchestrator.prepare import OpenRun, open_run, write_tokens
from orchestrator.run_folder.folder import RunFolder
from tests.core.tiny_models import save_tiny_model
from tests.e2e import runs


def opened(tmp_path: Path, text: str = "python-docs") -> OpenRun:
    path = runs.write_manifest(tmp_path, save_tiny_model(tmp_path / "model"))
    manifest = load_manifest(path, (f"data.path={text}",))
    folder = RunFolder(tmp_path, manifest.name)
    return open_run(tmp_path, manifest, folder, LocalBackend().inventory)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_they_are_the_same_and_the_plan_too(tmp_path: Path) -> None:
    run = opened(tmp_path)
    heard: list[tuple[int, str]] = []
    here = write_tokens(run, lambda *said: heard.append(said), apart=False)
    wanted, told = files(run.folder.tokens), set(heard)
    shutil.rmtree(run.folder.tokens)
    heard.clear()
    assert write_tokens(run, lambda *said: heard.append(said), apart=True) == here
    assert files(run.folder.tokens) == wanted and len(wanted) > 5
    assert set(heard) <= told and len(set(heard)) > 1


def test_what_is_wrong_with_the_text_is_told_as_here(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One document, and no other. " * 100)
    run = opened(tmp_path, str(text))
    said = []
    for apart in (False, True):
        with pytest.raises(DataError, match="too little") as error:
            write_tokens(run, lambda *_: None, apart=apart)
        said.append(str(error.value))
    assert said[0] == said[1]
