"""Runs that are copied before anything is written into them."""

import json
import shutil

import pytest

from orchestrator.evaluating.evaluate import Wanted, evaluate
from orchestrator.evaluating.listener import QUIET
from orchestrator.run_folder.folder import RunFolder
from tests.orchestrator.registry.runs import make_run


@pytest.fixture
def finished(reference, tmp_path):
    """A real run of four transcoders: two of one layer each, and two across layers, of two k. A
    random model has no extreme rows, so that all rows are given figures of their own."""
    _, run, _ = reference
    shutil.copytree(run, tmp_path / "small", ignore=shutil.ignore_patterns("tokens", "checkpoints"))
    for number, path in enumerate(sorted(tmp_path.glob("small/transcoders/*/evaluation.json"))):
        one = json.loads(path.read_text())
        one |= {"extreme_row_share": 0.01 * number, "extreme_variance_share": 0.2 * number}
        one["all"]["fvu"] *= 1.1
        for name in ("fvu_by_prefix", "nonzeros_by_group"):
            one["all"][name].reverse()
        one["all"]["density_histogram"]["never"] += 3
        path.write_text(json.dumps(one))
    return tmp_path / "small"


@pytest.fixture(scope="session")
def _mixed(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("mixed"))


@pytest.fixture
def mixed(_mixed, tmp_path):
    """Layer 0 is done, 1 in training, 2 has failed, 3 waits; written without a model."""
    shutil.copytree(_mixed, tmp_path / "t")
    return tmp_path / "t"


@pytest.fixture
def with_text(reference, tmp_path):
    """A finished run, a text of the user's, and where what was measured on it is."""
    run = shutil.copytree(reference[1], tmp_path / "small")
    mine = tmp_path / "mine.txt"
    mine.write_text("\n\n".join(f"Sentence {i} of mine." for i in range(300)))
    evaluate(RunFolder(tmp_path, "small"), Wanted(text=str(mine), tokens=64, prefixes=False), QUIET)
    (folder,) = run.glob("evaluations/text-*")
    return run, mine, folder
