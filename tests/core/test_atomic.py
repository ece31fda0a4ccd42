"""Files and folders are whole or absent."""

import errno
import json
import os

import pytest

from mtc_core.atomic import new_folder, remove_leftovers, write_bytes_atomic, write_json_atomic


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_only_when_all_is_written(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as temporary:
        (temporary / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"
    assert names(tmp_path / "deep") == ["out"]


def test_a_failed_write_leaves_the_old_folder_and_the_next_one_cleans_up(tmp_path):
    target = tmp_path / "out"
    with new_folder(target) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(RuntimeError), new_folder(target) as temporary:
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert names(target) == ["a"]
    with new_folder(target) as temporary:
        (temporary / "c").write_text("new")
    assert names(target) == ["c"] and names(tmp_path) == ["out"]


def test_cleaning_one_name_leaves_another_that_starts_like_it(tmp_path):
    for leftover in (".out.7.tmp", ".out.7.old.tmp", ".out2.7.tmp"):
        (tmp_path / leftover).mkdir()
    remove_leftovers(tmp_path, "out")
    assert names(tmp_path) == [".out2.7.tmp"]
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_written_leaves_no_part_of_it(tmp_path, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes_atomic(tmp_path / "facts.json", b"1" * 1000)
    assert names(tmp_path) == []


def test_two_machines_whose_processes_have_one_number_write_beside_each_other(tmp_path):
    with new_folder(tmp_path / "a") as one, new_folder(tmp_path / "b") as other:
        assert one.name.split(".")[-2] == other.name.split(".")[-2] == str(os.getpid())
        assert one.name.split(".")[2] != other.name.split(".")[2]


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "facts.json"
    write_json_atomic(path, {"a": 1, "ü": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1, "ü": "é"}
    with pytest.raises(ValueError):
        write_json_atomic(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["a"] == 1
    write_bytes_atomic(path, b"2")
    assert path.read_bytes() == b"2" and names(tmp_path) == ["facts.json"]
