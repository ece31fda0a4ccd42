"""REGISTRY.md says what is in a run folder and in its index: all of it, and nothing else."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.evaluating.evaluate import Wanted, evaluate
from orchestrator.evaluating.listener import QUIET
from orchestrator.features.features import Wanted as FeaturesWanted
from orchestrator.features.features import find_features
from orchestrator.registry.columns import COLUMNS, RUN
from orchestrator.registry.gc import COSTS
from orchestrator.registry.index import APPLICATION_ID, SCHEMA_VERSION, open_index
from orchestrator.run_folder.folder import RunFolder
from orchestrator.run_folder.lock import NAME as LOCK
from orchestrator.run_folder.lock import run_lock
from tests.core.tiny_models import save_tiny_model
from tests.e2e.runs import run_here, write_manifest
from tests.orchestrator.registry.runs import make_run

DOCUMENT = (Path(__file__).parents[3] / "orchestrator" / "REGISTRY.md").read_text()
FILES = DOCUMENT.split("## Files")[1].split("\n## ")[0]
INDEX = DOCUMENT.split("## Index")[1].split("\n## ")[0]
OPEN = "…"  # after the keys: there may be more


def rows(text: str) -> list[list[str]]:
    """Cells of every table row but headings."""
    lines = re.findall(r"^\| `.*\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def pattern(path: str) -> re.Pattern[str]:
    rule = re.escape(path).replace("ID", r"[^/]+").replace("STEP", r"\d{9}")
    rule = rule.replace("TEXT", r"(?:test|text-[0-9a-f]{8})").replace("NAME", r"[a-z]+")
    return re.compile(rule.replace("NUMBER", r"\d{4,}") + (".*" if path == "wandb/" else ""))


DESCRIBED = {path: row for row in rows(FILES) for path in names(row[0])}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A finished run of the driver, one that holds its lock, and one with a failure."""
    folder = tmp_path_factory.mktemp("registered")
    model = save_tiny_model(folder / "model", family="llama", n_layers=1)
    pair = "  - {layers: 0, source: resid_mid, target: mlp_out}"
    manifest = write_manifest(folder, model, tokens=256 * 8, transcoders=pair)
    code, printed = run_here(manifest, folder)
    assert code == 0, printed
    evaluate(RunFolder(folder, "small"), Wanted(text="python-docs", tokens=64), QUIET)
    wanted = FeaturesWanted(tokens=2048, contexts=2, window=4)
    find_features(RunFolder(folder, "small"), wanted, QUIET)
    open_index(folder / "small").close()
    return [folder / "small", make_run(folder / "other")]


def files(run: Path) -> list[str]:
    return [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]


def described_as(file: str) -> list[str]:
    found = [path for path in DESCRIBED if not path.endswith("/") or path == "wandb/"]
    return [path for path in found if pattern(path).fullmatch(file)]


def test_every_file_of_a_run_is_described_once(runs: list[Path]) -> None:
    assert len(files(runs[0])) > 20
    for run in runs:
        for file in files(run):
            assert len(described_as(file)) == 1, file


def test_every_file_described_is_written_by_a_run(runs: list[Path]) -> None:
    with run_lock(runs[1]):
        found = {path for run in runs for file in files(run) for path in described_as(file)}
    # This corpus is read to its end or not, as its size has it; W&B is off.
    elsewhere = {"tokens/end.json", "tracking.json", "wandb/"}
    elsewhere.add("evaluations/TEXT/NAME.progress.safetensors")  # of one that was interrupted
    described = {path for path in DESCRIBED if not path.endswith("/") or path == "wandb/"}
    assert described - found <= elsewhere


def test_the_keys_described_are_those_of_the_files(runs: list[Path]) -> None:
    checked = set()
    with run_lock(runs[1]):
        for run in runs:
            for file in filter(lambda name: name.endswith(".json"), files(run)):
                (path,) = described_as(file)
                cell = DESCRIBED[path][2]
                if not names(cell):
                    continue  # another document has them
                checked.add(path)
                described, there = set(names(cell)), set(json.loads((run / file).read_bytes()))
                if cell.startswith("`id` and the spec"):
                    described.discard("resolved.json")
                if run == runs[0] or file == LOCK:  # the other has no driver's files
                    assert described <= there, file
                if OPEN not in cell:
                    assert there <= described, file
    assert len(checked) > 12


def test_the_keys_of_a_latent_are_described(runs: list[Path]) -> None:
    section = DOCUMENT.split("## Features")[1].split("\n## ")[0]
    described = [name for row in rows(section) for name in names(row[0])]
    (path,) = runs[0].glob("features/test/*/latents.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    on = [line for line in lines if line["fired"]]
    assert on and all(list(line) == described for line in on)
    assert all(list(line) == described[:3] for line in lines if not line["fired"])
    for key in ("contexts", "parent"):
        (cell,) = [row[1] for row in rows(section) if row[0] == f"`{key}`"]
        inner = [v for line in on for v in (line[key] if key == "contexts" else [line[key]]) if v]
        assert all(set(one) <= set(names(cell)) for one in inner)


def test_every_table_and_column_is_described_with_its_type_and_there_are_no_others(
    runs: list[Path],
) -> None:
    sections = re.split(r"^`(\w+)`: ", INDEX, flags=re.MULTILINE)[1:]
    described = {
        table: {name: kind for cell, kind, _ in rows(text) for name in names(cell)}
        for table, text in zip(sections[::2], sections[1::2], strict=True)
    }
    with closing(open_index(runs[0])) as index:
        tables = [
            name for (name,) in index.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        there = {
            table: {row[1]: row[2] for row in index.execute(f"PRAGMA table_info({table})")}
            for table in tables
        }
    assert described == there


def test_the_marks_and_the_example_hold(runs: list[Path]) -> None:
    assert f"`application_id` 0x{APPLICATION_ID:X}, `user_version` {SCHEMA_VERSION}" in INDEX
    (query,) = re.findall(r'^sqlite3 .*"(SELECT .*)"$', INDEX, re.MULTILINE)
    with closing(sqlite3.connect(runs[0] / "index.sqlite")) as index:
        ((id, fvu),) = index.execute(query)
    assert id.startswith("L00.") and 0 < fvu < 2


PYTHON = DOCUMENT.split("## From Python")[1].split("\n## ")[0]


def test_every_column_of_the_flat_rows_is_described_and_there_are_no_others() -> None:
    described = {name: of for cell, of, _ in rows(PYTHON) for name in names(cell)}
    assert described == {name: "run" if name in RUN else "transcoder" for name in COLUMNS}


def test_the_snippet_from_python_runs(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PYTHON, re.DOTALL)
    monkeypatch.chdir(runs[0].parent)
    scope: dict = {}
    two = (str(runs[0]), str(runs[1]))
    code = code.replace("runs/a", two[0]).replace("runs/b", two[1]).replace('"runs"', '"."')
    exec(code, scope)
    assert len(scope["found"]) == 1 and scope["found"][0]["fvu"] > 0
    assert scope["few"] == [] and len(scope["two"]) == 5


def test_every_kind_of_rubbish_is_described() -> None:
    text = DOCUMENT.split("## `registry gc`")[1]
    assert [names(kind)[0] for kind, _, _ in rows(text)] == list(COSTS)
