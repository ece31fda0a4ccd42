"""The cache at the root is as new as the runs, whatever happened to it, to them, or beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.registry import write_run
from mtc_core.atomic import write_json_atomic
from orchestrator.evaluating.results import EVALUATIONS, SPLICE, TEST, Results
from orchestrator.registry import flat_rows, glance
from orchestrator.registry.index import rebuild, register
from orchestrator.registry.invocations import begin
from orchestrator.registry.query import open_runs, rows
from orchestrator.registry.root_cache import NAME, sealed, unsealed
from orchestrator.run_folder.lock import run_lock
from orchestrator.snapshot import Snapshot
from orchestrator.status_file import NAME as STATUS
from orchestrator.status_file import StatusFile
from tests.orchestrator.registry.runs import age, read
from tests.orchestrator.registry.test_index import SPOILT, told, unwritable

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four runs, as if they had ended long ago."""
    for number in range(4):
        run = write_run(tmp_path, number, 2)
        age(run)
        rebuild(run)
        os.utime(run, (1e9, 1e9))
    return tmp_path


@pytest.fixture
def read_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were read."""
    names: list[str] = []
    open_index = flat_rows.open_index

    def counted(run: Path) -> Any:
        names.append(run.name)
        return open_index(run)

    monkeypatch.setattr(flat_rows, "open_index", counted)
    return names


def test_what_has_not_changed_is_not_read_again(tree: Path, read_runs: list[str]) -> None:
    first = rows(tree)
    assert len(read_runs) == 4
    assert rows(tree) == first and rows(tree / "run-0001") == first[2:4]
    assert len(read_runs) == 4


def invocation_begins(run: Path) -> None:
    with run_lock(run):
        begin(run, {})
        register(run)


def invocation_ends(run: Path) -> None:
    """As the driver does, from lock to lock."""
    with run_lock(run):
        invocation = begin(run, {})
        write_json_atomic(run / STATUS, {**read(run / STATUS), "tokens_per_second": 7.0})
        invocation.end({"exit_code": 0})
        register(run)


def eval_ends(run: Path) -> None:
    results = Results(run / EVALUATIONS / TEST)
    found = results.read(SPLICE)
    assert found is not None
    for figures in found["transcoders"].values():
        figures["kl"] = 7.0
    results.check_writable()
    results.write(SPLICE, found)


def eval_ends_for_the_first_time(run: Path) -> None:
    shutil.rmtree(run / EVALUATIONS)
    rows(run.parent)
    found = {"weights": {}, "transcoders": {}, "tokens": 1, "ce_clean": 3.3}
    Results(run / EVALUATIONS / TEST).write(SPLICE, found)


def final_is_deleted_and_the_index_rebuilt(run: Path) -> None:
    shutil.rmtree(next(run.glob("transcoders/*/final")))
    rebuild(run)


def manifest_is_begun_anew(run: Path) -> None:
    resolved = read(run / "resolved.json")
    write_json_atomic(run / "resolved.json", {**resolved, "model": {"name": "another"}})


def copied_over(run: Path) -> None:
    shutil.copytree(run.parent / "run-0003", run.parent / "copy")
    shutil.rmtree(run)
    (run.parent / "copy").rename(run)
    age(run)  # to the very dates it had


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an invocation begins": (invocation_begins, "began"),
    "an invocation ends": (invocation_ends, "tokens_per_second"),
    "eval has measured": (eval_ends, "kl"),
    "eval has measured first": (eval_ends_for_the_first_time, "kl"),
    "the index was rebuilt": (final_is_deleted_and_the_index_rebuilt, "state"),
    "begun anew": (manifest_is_begun_anew, "model"),
    "another run in its place": (copied_over, "k"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_command_has_done_is_seen(tree: Path, change: str, read_runs: list[str]) -> None:
    do, column = CHANGES[change]
    before = rows(tree)
    do(tree / "run-0001")
    del read_runs[:]
    after = rows(tree)
    assert set(read_runs) == {"run-0001"}
    shutil.copytree(tree, tree / "elsewhere")  # read without a cache
    (tree / "elsewhere" / NAME).unlink()
    fresh = rows(tree / "elsewhere")
    assert [{**row, "path": ""} for row in after] == [{**row, "path": ""} for row in fresh]
    if column != "began":  # the first one counts
        assert [row[column] for row in after] != [row[column] for row in before]


def test_runs_that_come_and_go_are_seen(tree: Path) -> None:
    assert len(rows(tree)) == 8
    write_run(tree, 9, 2)
    (tree / "run-0002").rename(tree / "renamed")
    shutil.rmtree(tree / "run-0000")
    (tree / "run-0003" / "resolved.json").unlink()
    names = ["renamed", "run-0001", "run-0009"]
    assert list(dict.fromkeys(row["run"] for row in rows(tree))) == names
    assert list(dict.fromkeys(row["run"] for row in rows(tree))) == names


def test_a_run_at_work_is_read_each_time_and_never_kept(tree: Path, read_runs: list[str]) -> None:
    rows(tree)
    kept = (tree / NAME).read_bytes()
    run = tree / "run-0001"
    StatusFile(run, 10).update(Snapshot(10))  # of this process, which lives
    begin(run, {})
    for round in range(3):
        age(run)  # no date tells
        del read_runs[:]
        folder = next(run.glob("transcoders/*"))
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(f'{{"step": 1, "fvu": {0.5 + round}}}\n')
        found = rows(tree, "run=run-0001")
        assert found[0]["batch_fvu"] == 0.5 + round and found[0]["run_state"] == "running"
        assert set(read_runs) == {"run-0001"}
        assert (tree / NAME).read_bytes() == kept


@pytest.mark.parametrize(("silent_s", "kept"), [(0, False), (3600, True)])
def test_a_killed_run_is_kept_once_its_trainers_are_gone_too(
    tree: Path, read_runs: list[str], silent_s: float, kept: bool
) -> None:
    run = tree / "run-0001"
    dead = {**read(run / STATUS), "state": "running", "host": os.uname().nodename, "pid": 2**22}
    write_json_atomic(run / STATUS, dead)
    (run / "invocations" / "0001.end.json").unlink()
    rebuild(run)
    age(run)
    last = time.time() - silent_s
    os.utime(run / STATUS, (last, last))
    rows(tree)
    del read_runs[:]
    assert {row["run_state"] for row in rows(tree, "run=run-0001")} == {"killed"}
    assert bool(read_runs) != kept


def test_two_changes_within_a_tick_of_the_clock_are_both_seen(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tree / "run-0001"
    eval_ends(run)
    moment = (run / EVALUATIONS / TEST).stat().st_mtime_ns

    def second(_: float) -> None:
        """Comes after a first look, and leaves the date that the first one left."""
        found = read(run / EVALUATIONS / TEST / SPLICE)
        for figures in found["transcoders"].values():
            figures["kl"] = 9.0
        write_json_atomic(run / EVALUATIONS / TEST / SPLICE, found)
        os.utime(run / EVALUATIONS / TEST, ns=(moment, moment))

    with monkeypatch.context() as patch:
        patch.setattr(glance.time, "sleep", second)
        rows(tree)
    assert {row["kl"] for row in rows(tree, "run=run-0001")} == {9.0}


@pytest.mark.parametrize("spoil", ["missing", "empty", "garbage", "half", "garbled",
                                   "garbled somewhere"])  # fmt: skip
def test_a_spoilt_cache_is_made_anew(tree: Path, spoil: str, read_runs: list[str]) -> None:
    good = rows(tree)
    SPOILT[spoil](tree / NAME)
    del read_runs[:]
    assert rows(tree) == good and len(read_runs) == 4
    assert rows(tree) == good and len(read_runs) == 4


@pytest.mark.parametrize("change", ["UPDATE made SET version = 0", "UPDATE made SET package = '0'",
                                    "DELETE FROM made", "ALTER TABLE runs ADD COLUMN mood TEXT",
                                    "DROP TABLE made", "PRAGMA journal_mode = WAL"])  # fmt: skip
def test_a_cache_of_another_version_is_made_anew(
    tree: Path, tmp_path: Path, change: str, read_runs: list[str]
) -> None:
    good = rows(tree)
    content = unsealed((tree / NAME).read_bytes())
    assert content is not None
    (tmp_path / "other").write_bytes(content)
    told(change)(tmp_path / "other")
    (tree / NAME).write_bytes(sealed((tmp_path / "other").read_bytes()))
    del read_runs[:]
    assert rows(tree) == good and len(read_runs) == 4


def test_a_root_that_cannot_be_written_is_answered_from_memory(tree: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own lets nobody else in
        os.chmod(folder, 0o755)
        theirs = Path(folder) / "t"
        shutil.copytree(tree, theirs)
        with unwritable(theirs):
            assert len(rows(theirs)) == 8
        assert not (theirs / NAME).exists()


def test_asking_for_one_run_leaves_no_file_beside_it(tree: Path) -> None:
    assert len(rows(tree / "run-0001")) == 2
    assert not (tree / NAME).exists()


def test_leftovers_of_killed_writers_are_removed(tree: Path) -> None:
    old, young = tree / f".{NAME}.1.tmp", tree / f".{NAME}.2.tmp"
    old.touch(), young.touch()
    os.utime(old, (1e9, 1e9))
    rows(tree)
    assert not old.exists() and young.exists()


READER = """
import sys
from orchestrator.registry.query import rows
for _ in range(15):
    found = rows(sys.argv[1])
    assert len(found) == 8, len(found)
"""


def test_commands_at_once_do_each_other_no_harm(tree: Path) -> None:
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, tree], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    seen = 0.0
    while any(reader.poll() is None for reader in readers):
        seen += 1.0
        run = tree / "run-0001"
        status = read(run / STATUS)
        write_json_atomic(run / STATUS, {**status, "tokens_per_second": seen})
        assert {row["tokens_per_second"] for row in rows(tree, "run=run-0001")} == {seen}
    for reader in readers:
        assert reader.returncode == 0, reader.communicate()[1].decode()
        reader.communicate()
    assert not list(tree.glob(".*.tmp"))


def test_progress_is_told_of_runs_that_have_to_be_read(tree: Path) -> None:
    told: list[tuple[int, int]] = []
    for expected in ([(0, 4), (1, 4), (2, 4), (3, 4)], []):
        del told[:]
        with open_runs(tree, lambda done, of: told.append((done, of))):
            assert told == expected
