"""Which errors are a disk's, and whose."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.run_folder.disk_errors import disk_errors, elsewhere, out_of_space, unwritable


def of(number: int, *path: object) -> OSError:
    return OSError(number, os.strerror(number), *map(str, path))


RUST = "Error while serializing: I/O error: {} (os error {})"


def test_full_disks_are_told_from_sick_ones_and_from_all_other_errors() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert out_of_space(of(number)) and not unwritable(of(number))
    assert out_of_space(ValueError(RUST.format("No space left on device", errno.ENOSPC)))
    for number in (errno.EROFS, errno.EIO):
        assert unwritable(of(number)) == os.strerror(number) and not out_of_space(of(number))
    assert unwritable(ValueError(RUST.format("any words", errno.EROFS))) == "Read-only file system"
    for error in (of(errno.EACCES), of(errno.ENOENT), OSError("of no number"), ValueError("x")):
        assert not out_of_space(error) and not unwritable(error)


def test_the_file_is_named_where_it_is_not_the_runs_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert elsewhere(of(errno.ENOSPC, "/cache/x"), run) == "/cache/x"
    for path in (run / "tokens" / "x", "facts.json"):
        assert elsewhere(of(errno.ENOSPC, path), run) == ""
    assert elsewhere(of(errno.ENOSPC), run) == elsewhere(ValueError("x"), run) == ""


@pytest.mark.parametrize(
    "number,remedy",
    [(errno.ENOSPC, "free space there, or choose another --root"), (errno.EROFS, "; choose an")],
)
def test_what_a_command_says(number: int, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=remedy), disk_errors(tmp_path, "written"):
        raise of(number)
