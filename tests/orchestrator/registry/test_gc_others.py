"""What `registry gc` leaves alone: files of others, and what mends a fault that verify tells."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mtc_core.atomic import write_json_atomic
from mtc_core.errors import ConfigError
from orchestrator.registry.gc import COSTS, find_rubbish
from orchestrator.run_folder.lock import run_lock
from tests.orchestrator.registry.runs import read, transcoder
from tests.orchestrator.registry.test_gc import call, collect, files

KINDS = tuple(COSTS)


@pytest.mark.parametrize("named", [True, False])
def test_nothing_is_written_through_a_link_out_of_a_run(
    run: Path, tmp_path: Path, named: bool
) -> None:
    """Whichever way the run was found; and the others are cleared."""
    other = shutil.copytree(run, run.parent / "other")
    (theirs := tmp_path / "theirs").write_text("precious")
    os.utime(theirs, (1, 1))
    (run / "lock.json").symlink_to(theirs)
    before = files(run)
    shown = call(*([str(run)] if named else ["--root", str(run.parent)]), "--yes")
    assert shown.exit_code == 2 if named else 1
    assert f"{run / 'lock.json'}: is a link to {theirs}" in shown.output
    assert files(run) == before and theirs.read_text() == "precious"
    assert find_rubbish(other, ["checkpoints"]) == [] or named
    with pytest.raises(ConfigError, match="cannot be written"), run_lock(run):
        pass
    assert theirs.read_text() == "precious"


def test_what_lies_beside_checkpoints_is_somebodys_own(run: Path) -> None:
    folder = transcoder(run, 0) / "checkpoints"
    (step,) = [path for path in folder.iterdir() if path.name.startswith("step-")][-1:]
    shutil.copytree(step, kept := folder / f"{step.name}-my-keep")
    (archive := folder / f"{step.name}.tar.gz").write_bytes(b"mine")
    collect(run, find_rubbish(run, KINDS))
    assert {path.name for path in folder.iterdir()} == {kept.name, archive.name}


@pytest.mark.parametrize("missing", ["evaluation", "reference"])
def test_checkpoints_stay_where_verify_would_have_final_written_again(
    run: Path, missing: str
) -> None:
    """From them that takes a moment, without them the whole training."""
    folder = transcoder(run, 0)
    if missing == "evaluation":
        (folder / "evaluation.json").unlink()
    else:
        digests = read(folder / "final" / "sha256.json")
        del digests["reference.safetensors"]
        (folder / "final" / "reference.safetensors").unlink()
        write_json_atomic(folder / "final" / "sha256.json", digests)
    gone, kept = collect(run, find_rubbish(run, ["checkpoints"]))
    assert gone == [] and f"{missing}." in kept[0] and "is missing; delete that final/" in kept[0]
