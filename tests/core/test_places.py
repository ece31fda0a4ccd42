"""Paths of users are looked at without surprises."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtc_core.places import is_folder, is_there, may_be_hub_id, place


@pytest.mark.parametrize("written", ["x" * 300, "a\0b", "~no-such-user/x", "./nothing"])
def test_what_no_disk_holds_is_not_there(written):
    assert not is_there(place(written)) and not is_folder(place(written))


def test_what_is_there_is_seen_and_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "text.txt").write_text("here")
    assert place("~/text.txt") == tmp_path / "text.txt"
    assert is_there(place("~/text.txt")) and not is_folder(place("~/text.txt"))
    assert is_folder(place("~")) and place("a/b") == Path("a/b")


def test_a_locked_folder_counts_as_there_so_that_reading_it_tells_why(tmp_path, monkeypatch):
    def locked(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", locked)  # root, who runs tests, may enter anything
    assert is_there(tmp_path / "inside")


@given(st.text("aZ9._-/é \n:日", max_size=12) | st.text("ab-./", min_size=90, max_size=105))
def test_hub_ids_are_what_the_hubs_own_client_takes(name):
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        taken = True
    except HFValidationError:
        taken = False
    assert may_be_hub_id(name) == taken
