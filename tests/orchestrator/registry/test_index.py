"""The index is as new as the files, whatever happened to it, to them, or to who wrote it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mtc_core.atomic import write_json_atomic
from mtc_core.errors import ConfigError
from orchestrator.registry import signature as signature_module
from orchestrator.registry.index import NAME, connect, open_index, rebuild, register
from orchestrator.registry.signature import CHANGING, settled_signature, signature
from tests.orchestrator.registry.runs import age, ask, states, transcoder

ROOT = Path(__file__).parents[3]
NOBODY = 65534


def state(path: Path) -> tuple[int, ...]:
    """What writing to a file, or another in its place, would change; reading changes st_atime."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def test_a_fresh_index_is_used_as_it_is_and_read_only(run: Path) -> None:
    rebuild(run)
    before = state(run / NAME)
    with closing(open_index(run)) as index, pytest.raises(sqlite3.OperationalError):
        index.execute("UPDATE run SET done = 9")
    assert state(run / NAME) == before
    (run / NAME).unlink()
    with closing(open_index(run)) as index, pytest.raises(sqlite3.OperationalError):
        index.execute("UPDATE run SET done = 9")


def lose_final(run: Path) -> None:
    shutil.rmtree(transcoder(run, 0) / "final")


def fail_first(run: Path) -> None:
    write_json_atomic(transcoder(run, 1) / "failed.json", {"reason": "no", "step": 3})


def grow_metrics(run: Path) -> None:
    with open(transcoder(run, 1) / "metrics.jsonl", "a") as file:
        file.write('{"step": 15, "loss": 0.5}\n{"step": 20, "lo')


def drop_checkpoint(run: Path) -> None:
    shutil.rmtree(transcoder(run, 1) / "checkpoints" / "step-000000012")


def begin_again(run: Path) -> None:
    write_json_atomic(run / "invocations" / "0002.begin.json", {"number": 2, "began": 5.0})


def change_status(run: Path) -> None:
    write_json_atomic(run / "status.json", {"state": "running", "step": 13})


@pytest.mark.parametrize(
    ("change", "query", "before", "after"),
    [
        (lose_final, "SELECT state FROM transcoders", "done", "training"),
        (fail_first, "SELECT count(*) FROM transcoders WHERE state = 'failed'", 1, 2),
        (grow_metrics, "SELECT max(step) FROM training WHERE transcoder LIKE 'L01%'", 10, 15),
        (drop_checkpoint, "SELECT step FROM transcoders WHERE id LIKE 'L01%'", 12, 10),
        (begin_again, "SELECT count(*) FROM invocations WHERE ended IS NULL", 0, 1),
        (change_status, "SELECT state FROM run", "stopped", "running"),
    ],
)
def test_what_has_happened_since_is_seen(
    run: Path, change: Any, query: str, before: Any, after: Any
) -> None:
    rebuild(run)
    assert next(iter(ask(run, query)[0].values())) == before
    change(run)
    assert next(iter(ask(run, query)[0].values())) == after
    with closing(connect(run / NAME)) as written:
        assert written.execute(query).fetchone()[0] == after


def test_two_changes_within_a_tick_of_the_clock_are_both_seen(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes after a look at the files, and leaves the date that the first one left."""
    folder = transcoder(run, 1)
    fail_first(run)
    date = folder.stat().st_mtime_ns

    def second(_: float) -> None:
        (folder / "failed.json").unlink()
        os.utime(folder, ns=(date, date))

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", second)
        rebuild(run)
    assert states(run) == "dtfw"


def test_an_index_made_while_facts_are_being_written_is_made_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_final(run)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda _: fail_first(run))
        assert settled_signature(run) == CHANGING
    assert settled_signature(run) == signature(run) != CHANGING
    age(run)
    monkeypatch.delattr(signature_module.time, "sleep")  # no wait where nothing is young
    assert settled_signature(run) == signature(run)


def overwritten(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:] = os.urandom(len(content) - 100)  # behind a sound header
    path.write_bytes(content)


def one_page_garbled(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-4096] + b"\xff" * 4096)


def told(*statements: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as index:
            for statement in statements:
                index.execute(statement)
            index.commit()

    return change


def foreign(path: Path) -> None:
    path.unlink()
    told("CREATE TABLE run (name)", "INSERT INTO run VALUES ('somebody else')")(path)


SPOILT = {
    "missing": Path.unlink,
    "empty": overwritten(b""),
    "garbage": overwritten(b"no database" * 1000),
    "half": halved,
    "garbled": garbled,
    "garbled somewhere": one_page_garbled,
    "another version": told("PRAGMA user_version = 2"),
    "another program's": told("PRAGMA application_id = 7"),
    "another database": foreign,
    "a table short": told("DROP TABLE prefixes"),
    "a column more": told("ALTER TABLE run ADD COLUMN mood TEXT"),
    "no signature": told("DELETE FROM made"),
    "in WAL mode": told("PRAGMA journal_mode = WAL", "UPDATE made SET signature = ''"),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_index_is_rebuilt_by_whoever_reads(run: Path, spoil: str) -> None:
    rebuild(run)
    good = (run / NAME).read_bytes()
    SPOILT[spoil](run / NAME)
    assert states(run) == "dtfw"
    assert (run / NAME).read_bytes() == good


def test_a_rebuild_killed_at_any_call_leaves_an_index_that_is_old_or_new(
    run: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    lose_final(changed)
    age(changed)
    found = subprocess.run(
        [sys.executable, "-m", "tests.orchestrator.registry.killed_rebuild", run, changed],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    left = json.loads(found.stdout)
    assert left["kills"] >= 4 and left["old"] >= 3 and left["new"] >= 2 and left["leftovers"] >= 2


READER = """
import sys, time
from contextlib import closing
from pathlib import Path
from orchestrator.registry.index import NAME, connect, open_index
run, n, seen = Path(sys.argv[1]), 0, set()
end = time.monotonic() + 2
while time.monotonic() < end:
    for index in (open_index(run), connect(run / NAME)):
        with closing(index):
            assert index.execute("PRAGMA quick_check").fetchone() == ("ok",)
            assert index.execute("SELECT count(*) FROM transcoders").fetchone() == (4,)
            seen.add(index.execute("SELECT max(step) FROM training").fetchone()[0])
    n += 1
assert n > 20 and len(seen) > 5, (n, seen)
"""


def test_readers_never_see_an_error_while_a_writer_rebuilds(run: Path) -> None:
    rebuild(run)
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, run], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    step = 100
    while any(reader.poll() is None for reader in readers):
        step += 1
        with open(transcoder(run, 1) / "metrics.jsonl", "a") as file:
            file.write(f'{{"step": {step}}}\n')
        rebuild(run)
    for reader in readers:
        assert reader.returncode == 0, reader.communicate()[1].decode()
        reader.communicate()
    assert not list(run.glob(".*.tmp"))


@contextmanager
def unwritable(run: Path) -> Iterator[None]:
    """Nobody may write there: root, whom no mode stops, becomes somebody else meanwhile."""
    run.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(PermissionError):
            (run / "x").touch()
        yield
    finally:
        if root:
            os.seteuid(0)
        run.chmod(0o755)


def test_a_run_that_cannot_be_written_is_answered_from_memory(run: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own lets nobody else in
        os.chmod(folder, 0o755)
        theirs = Path(folder) / "t"
        shutil.copytree(run, theirs)
        with unwritable(theirs):
            assert states(theirs) == "dtfw"
            with pytest.raises(ConfigError, match=r"index\.sqlite: cannot be written"):
                rebuild(theirs)
        assert not (theirs / NAME).exists()
        lose_final(theirs)
        rebuild(theirs)
        with unwritable(theirs):
            assert states(theirs) == "ttfw"


def test_an_index_never_stops_a_run(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run / NAME).mkdir()
    with caplog.at_level(logging.WARNING, "mtc"):
        register(run)
        assert states(run) == "dtfw"
        (run / NAME).rmdir()
        (run / "resolved.json").write_text("{")
        register(run)
    assert [record.message for record in caplog.records] == [
        f"the index is not up to date: {run / NAME}: cannot be written (Is a directory); choose "
        "another --root",
        f"the index is not up to date: {run / 'resolved.json'} is damaged: Expecting property "
        "name enclosed in double quotes: line 1 column 2 (char 1)",
    ]
