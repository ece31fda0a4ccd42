"""`registry verify` tells everything that is wrong with a run folder, and nothing else."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mtc_core.atomic import write_json_atomic
from orchestrator.cli import cli
from orchestrator.registry import verify as verify_module
from orchestrator.registry.index import NAME, rebuild
from orchestrator.registry.verify import verify
from tests.orchestrator.registry.runs import transcoder

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def index(run: Path) -> None:
    rebuild(run)


def command(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def one(run: Path, pattern: str) -> Path:
    (path,) = run.glob(pattern)
    return path


def flip(pattern: str) -> Callable[[Path], Path]:
    def change(run: Path) -> Path:
        path = one(run, pattern)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return path

    return change


def remove(pattern: str) -> Callable[[Path], Path]:
    def change(run: Path) -> Path:
        path = one(run, pattern)
        path.unlink()
        return path

    return change


def edit(pattern: str, old: str, new: str) -> Callable[[Path], Path]:
    def change(run: Path) -> Path:
        path = one(run, pattern)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return path

    return change


def append(pattern: str, text: str) -> Callable[[Path], Path]:
    def change(run: Path) -> Path:
        path = one(run, pattern)
        with open(path, "a") as file:
            file.write(text)
        return path

    return change


def in_folder(change: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """The fault is told of the folder."""
    return lambda run: change(run).parent


def add(name: str) -> Callable[[Path], Path]:
    def change(run: Path) -> Path:
        (run / name).mkdir() if not Path(name).suffix else (run / name).write_text("?")
        return run / name

    return change


def in_final(run: Path) -> Path:
    path = transcoder(run, 0) / "final" / "notes.txt"
    path.write_text("mine")
    return path


def lie_in_the_index(run: Path) -> Path:
    with closing(sqlite3.connect(run / NAME)) as index:
        index.execute("UPDATE transcoders SET state = 'done'")
        index.commit()
    return run / NAME


def spoil_the_index(run: Path) -> Path:
    (run / NAME).write_bytes(b"no database" * 500)
    return run / NAME


FINAL, LAST = "transcoders/L00*/final/", "transcoders/L01*/checkpoints/*12/"
FAULTS = {
    "a flipped bit in a checkpoint": (flip(LAST + "state.safetensors"), "its sha256 differs"),
    "a flipped bit in its facts": (flip(LAST + "facts.json"), "its sha256 differs"),
    "a flipped bit in a transcoder": (flip(FINAL + "weights.safetensors"), "its sha256 differs"),
    "a flipped bit in its config": (flip(FINAL + "config.json"), "its sha256 differs"),
    "no weights": (remove(FINAL + "weights.safetensors"), "is missing"),
    "no state": (remove(LAST + "state.safetensors"), "is missing"),
    "no digests": (in_folder(remove(FINAL + "sha256.json")), "has no sha256.json"),
    "digests with a blank": (append(FINAL + "sha256.json", " "), "is not as it was written"),
    "a checkpoint's": (append(LAST + "sha256.json", "\n"), "is not as it was written"),
    "a file of somebody's": (in_final, "is not in sha256.json"),
    "no evaluation": (remove("transcoders/L00*/evaluation.json"), "is missing"),
    "another's evaluation": (edit("transcoders/L00*/evaluation.json", "L00.", "L07."), "is of L07"),
    "a torn evaluation": (edit("transcoders/L00*/evaluation.json", "}", ""), "is damaged"),
    "a torn line": (edit("transcoders/L01*/metrics.jsonl", '"step"', '"step:'), "line 1 is"),
    "a torn end": (append("transcoders/L00*/metrics.jsonl", '{"step"'), "line 6 is damaged"),
    "lines gone": (edit("transcoders/L01*/metrics.jsonl", '{"step": 0', '{"a": 0'), "has"),
    "no metrics": (remove("transcoders/L01*/metrics.jsonl"), "has 0 bytes"),
    "a torn failure": (edit("transcoders/L02*/failed.json", "{", ""), "is damaged"),
    "another config": (edit("transcoders/L01*/config.json", '"k": 5', '"k": 6'), "differs from"),
    "a torn plan": (edit("plan.json", "{", ""), "is damaged"),
    "another's spec": (edit("resolved.json", '"k": 5', '"k": 6'), "describes L0"),
    "a torn resolved.json": (edit("resolved.json", "{", ""), "is damaged"),
    "an unknown transcoder": (add("transcoders/L09"), "is no transcoder of resolved.json"),
    "a stray file": (add("transcoders/notes.txt"), "is no transcoder of resolved.json"),
    "a torn invocation": (in_folder(edit("invocations/0001.end.json", "{", "")), "0001.end.json"),
    "an index that lies": (lie_in_the_index, "table transcoders differs from the files in 3 rows"),
    "no index at all": (spoil_the_index, "is damaged: file is not a database"),
}  # fmt: skip


def test_a_sound_run_has_every_file_verified(run: Path) -> None:
    found = verify(run)
    assert not found.faults and not found.leftovers
    unchecked = {"manifest.yaml", "status.json"}
    there = [path for path in run.rglob("*") if path.is_file() and path.name not in unchecked]
    assert found.files == len(there) > 30
    result = command("registry", "verify", run)
    assert (result.exit_code, result.output) == (0, f"{len(there)} files verified\n")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_told_with_its_place_and_the_way_out(run: Path, fault: str) -> None:
    spoil, what = FAULTS[fault]
    path = spoil(run)
    first, *rest = verify(run).faults
    # What was in a small file is in the index too, and what a spec says in other files as well.
    assert {fault.path for fault in rest} <= {str(run / NAME)} or fault == "another's spec"
    assert first.path == str(path) and what in first.what and len(first.remedy) > 10
    result = command("registry", "verify", "t", "--root", run.parent)
    assert result.exit_code == 1
    assert f"{path}: {first.what}; {first.remedy}\n" in result.output
    assert f"{1 + len(rest)} things wrong" in result.output


def test_several_faults_are_told_together_and_as_json(run: Path) -> None:
    paths = {str(FAULTS[name][0](run)) for name in ("no weights", "no state", "a torn line")}
    result = command("registry", "verify", run, "--json")
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert {fault["path"] for fault in found["faults"]} == paths
    assert found["files"] == verify(run).files and found["leftovers"] == []


def test_what_a_run_at_work_leaves_is_no_fault(run: Path) -> None:
    training = transcoder(run, 1)
    with open(training / "metrics.jsonl", "a") as file:
        file.write('{"step": 15, "loss": 0.5}\n{"step": 20, "lo')
    half = training / "checkpoints" / ".step-000000015.77.tmp"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    (run / "status.json").write_text("{")
    (training / ".lock").touch()
    found = verify(run)
    assert not found.faults and found.leftovers == [str(half)]
    result = command("registry", "verify", run)
    assert result.exit_code == 0 and f"{half}: left by a writer that was killed" in result.output


@pytest.mark.parametrize("reads", range(1, 12))
def test_checkpoints_that_vanish_meanwhile_are_no_fault(
    run: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    left = iter(range(reads))
    digest = verify_module.file_digest

    def digest_after_the_driver_has_dropped_checkpoints(path: Path) -> str:
        if next(left, None) is None:
            for layer in (0, 1, 2):
                shutil.rmtree(transcoder(run, layer) / "checkpoints", ignore_errors=True)
        return digest(path)

    monkeypatch.setattr(
        verify_module, "file_digest", digest_after_the_driver_has_dropped_checkpoints
    )
    assert not verify(run).faults


def test_verifying_changes_nothing(run: Path) -> None:
    lie_in_the_index(run)
    write_json_atomic(transcoder(run, 1) / "failed.json", {"reason": "no", "step": 3})

    def dates() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in run.rglob("*")}

    before = dates()
    assert not verify(run).faults  # the index is older than the files: the next reader rebuilds it
    assert dates() == before


def test_rebuild_mends_an_index_that_lies(run: Path) -> None:
    lie_in_the_index(run)
    assert command("registry", "verify", run).exit_code == 1
    result = command("registry", "rebuild", run)
    assert (result.exit_code, result.output) == (0, f"rebuilt {run / NAME}\n")
    assert command("registry", "verify", run).exit_code == 0


def test_an_unknown_run_is_one_message(tmp_path: Path) -> None:
    for word in ("rebuild", "verify"):
        result = command("registry", word, "nowhere", "--root", tmp_path)
        assert result.exit_code == 2 and "no run folder here" in result.output


def test_list_tells_from_the_index_what_status_tells_from_the_files(
    run: Path, original: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        shutil.copytree(original, tmp_path / name)
    (tmp_path / "a" / "resolved.json").write_text("{")
    shutil.rmtree(transcoder(tmp_path / "b", 0) / "final")
    listed = json.loads(command("list", "--root", tmp_path, "--json").output)
    assert [state["state"] for state in listed] == ["unreadable", "stopped", "stopped"]
    assert "resolved.json is damaged" in listed[0]["reason"]
    for state in listed[1:]:
        assert state == json.loads(command("status", state["run"], "--json").output)
    assert "test" in listed[2]["transcoders"][0] and "test" not in listed[1]["transcoders"][0]
    shown = command("list", "--root", tmp_path).output
    assert "1/4" in shown and "0/4" in shown and f"{tmp_path / 'a'}: {listed[0]['reason']}" in shown


LIGHT = """
import sys
from click.testing import CliRunner
from orchestrator.cli import cli
for words in (["list", "--root", sys.argv[1]], ["registry", "verify", sys.argv[1] + "/t"],
              ["registry", "rebuild", sys.argv[1] + "/t"]):
    assert CliRunner().invoke(cli, words).exit_code == 0, words
heavy = {"torch", "ray", "transformers", "wandb"} & {name.split(".")[0] for name in sys.modules}
assert not heavy, heavy
"""


def test_looking_at_runs_loads_neither_torch_nor_ray(run: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", LIGHT, run.parent], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


UNREADABLE = ("evaluation.json", "metrics.jsonl", "final/sha256.json", "checkpoints", "final")


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_told_and_hides_nothing_else(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As a bad sector, or somebody else's file: root could read the latter."""
    path = transcoder(run, 0) / name
    refusing(monkeypatch, path)
    other = flip(LAST + "state.safetensors")(run)
    found = {fault.path: fault.what for fault in verify(run).faults}
    assert found.keys() == {str(path), str(other)} and "cannot be read" in found[str(path)]
    counted = verify(run).files
    (run / NAME).unlink()
    # Where the files cannot be read, the index was not compared with them, and is not called sound.
    assert verify(run).files == counted - (name == "final")
    assert command("registry", "verify", run).exit_code == 1


def refusing(monkeypatch: pytest.MonkeyPatch, refused: Path) -> None:
    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, str | Path) and Path(path) == refused:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        return call

    monkeypatch.setattr("builtins.open", guarded(open))
    monkeypatch.setattr("io.open", guarded(io.open))
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
