"""A run that is killed, or whose disk is full, at each call that changes the disk: it says so,
harms nothing, and continues to the same bits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.runs import privately
from tests.hardening.conftest import SHARE, Tally, share
from tests.hardening.fault_points import results

pytestmark = pytest.mark.hardening
SOURCE = Path(__file__).with_name("faults.c")
ROOT = Path(__file__).parents[2]
STOPPED, USER_ERROR = 3, 2
UNHARMED = {"kill": 0.1, "tear": 0.2, "fill": 0.4, "read-only": 0.4}  # at most; of few, some more
READ_ONLY = "Read-only file system"
FULL = re.compile(r"disk of \S+ is full|No space left on device|not enough disk on \S+: needs ")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (compiler := shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", SOURCE, "-o", made, "-ldl"], check=True)
    return made


def broken(
    mode: str, library: Path, model: Path, folder: Path, before: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    program = [sys.executable, "-m", "tests.hardening.fault_points"]
    ended = subprocess.run(
        [*before, *program, model, folder, mode, str(SHARE)],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found = results(folder)
    assert len(found) >= share(50), ended.stderr
    # Some calls hang on time: a run may be over before the last of them, and what is written for
    # its reader alone need not stop it. But else this test could pass without any harm done.
    unharmed = sum(one["code"] == 0 for one in found)
    assert unharmed <= len(found) * UNHARMED[mode], f"{unharmed} of {len(found)} were not harmed"
    return found


def count(tally: Tally, found: dict[str, Any], right: bool, told: str) -> None:
    right = right and found["again"] == 0 and found["same_bits"]
    tally.add(right, told if right else str(found))


@pytest.mark.parametrize("mode", ["kill", "tear"])
def test_killed_at_every_write(
    mode: str, library: Path, model: Path, tmp_path: Path, tally: Tally
) -> None:
    """`tear`: in the middle of what is written."""
    for found in broken(mode, library, model, tmp_path):
        # The order of some calls is left to chance: the run may be over before the last of them.
        count(tally, found, found["code"] in (-9, 0), "continued to the same bits")


def test_a_disk_that_is_full_at_every_write(
    library: Path, model: Path, tmp_path: Path, tally: Tally
) -> None:
    mounting = privately(("unshare", "--mount"))
    for found in broken("fill", library, model, tmp_path, mounting):
        printed = found["printed"]
        told = next((line for line in printed.splitlines() if FULL.search(line)), "done")
        refused = found["code"] in (STOPPED, USER_ERROR) and told != "done"
        right = refused or found["code"] == 0
        count(tally, found, right and "Traceback" not in printed, told)


def test_a_disk_that_becomes_read_only_at_every_write(
    library: Path, model: Path, tmp_path: Path, tally: Tally
) -> None:
    """For good, as ext4 does after an error."""
    for found in broken("read-only", library, model, tmp_path):
        printed = found["printed"]
        told = next((line for line in printed.splitlines() if READ_ONLY in line), "done")
        refused = found["code"] in (STOPPED, USER_ERROR) and told != "done"
        right = refused or found["code"] == 0
        count(tally, found, right and "Traceback" not in printed, told)
