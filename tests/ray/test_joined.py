"""Runs on a Ray that is there already: the bits of a run without Ray, whatever befalls cells."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from mtc_core.checkpoint import DIGESTS
from tests.e2e.runs import finals, run_here
from tests.ray.harm import (
    freeze_inside,
    half_written,
    harmless,
    kill_trainer,
    meanwhile,
    newest_step,
    steps_on,
)
from tests.ray.joined import Brisk, Scraped, run_joined

STEPS, BATCH = 160, 256


def folders(run: Path) -> list[Path]:
    """Of its transcoders; on three cells the first three are trained by different ones."""
    return sorted((run / "transcoders").iterdir())


def end_of(run: Path, invocation: int) -> dict:
    return json.loads((run / "invocations" / f"{invocation:04d}.end.json").read_text())


@pytest.fixture(scope="module")
def three_cells(cluster, longer, tmp_path_factory):
    """An uninterrupted run on three: its folder, what it printed, what Prometheus saw of it."""
    root = tmp_path_factory.mktemp("three")
    scraped, ended = Scraped(), threading.Event()
    with meanwhile(lambda: scraped.until(ended)):
        try:
            code, printed = run_joined(cluster, longer[0], root, "resources.cells=3")
        finally:
            ended.set()
    assert code == 0, printed
    return root / "small", printed, scraped


def test_three_cells_give_the_bits_of_a_run_without_ray(three_cells, longer):
    run, _, _ = three_cells
    assert finals(run) == finals(longer[1])


def test_each_cell_runs_one_forward_and_the_summary_says_so(three_cells, longer):
    run, printed, _ = three_cells
    passes = int(re.search(r"(\d+) forward passes in all: the first", longer[2])[1])
    ended = end_of(run, 1)
    assert len(ended["forwards"]) == 3 and ended["outcome"] == "done"
    assert f"{3 * passes} forward passes in all: one for each of 3 cells" in printed
    assert f"separate runs would have needed {4 * passes}" in printed
    for cell, counts in ended["forwards"].items():
        assert counts["passes"] == counts["first_block"] == counts["last_block"] == passes
        assert counts["unembedding"] == 0
        line = f"{cell}: the first block ran {passes} times, the last one needed {passes}, the"
        assert line in printed


def test_prometheus_finds_every_gauge_of_every_cell(three_cells):
    run, _, scraped = three_cells
    cells = set(json.loads((run / "invocations" / "0001.begin.json").read_text())["cell_names"])
    ids = {path.name for path in folders(run)}
    limits = {
        "mtc_tokens_total": (BATCH, STEPS * BATCH),
        "mtc_tokens_per_second": (1, 1e9),
        "mtc_stage_seconds_total": (1e-6, 600),
        "mtc_forward_passes_total": (1, 1000),
        "mtc_resident_bytes": (2**20, 2**40),
        "mtc_start": (1, 1),
        "mtc_step": (1, STEPS),
        "mtc_fvu": (0.01, 2),
        "mtc_l0": (1, 32),
        "mtc_dead_share": (0, 1),
    }
    for name, (least, most) in limits.items():
        samples = scraped.of(name)
        assert {labels["actor"] for labels, _ in samples} == cells, name
        assert {labels["run"] for labels, _ in samples} == {"small"}
        assert all(least <= value <= most for _, value in samples), (name, samples)
        assert not any("step" in labels for labels, _ in samples)
    for name in ("mtc_fvu", "mtc_l0", "mtc_dead_share", "mtc_step"):
        assert {labels["transcoder"] for labels, _ in scraped.of(name)} == ids
    fvus = scraped.of("mtc_prefix_fvu")
    prefixes = {(labels["transcoder"], labels["prefix"]) for labels, _ in fvus}
    assert prefixes == {(id, prefix) for id in ids for prefix in "123"}


@pytest.mark.chaos
def test_trainers_killed_at_five_random_moments_leave_no_trace(cluster, longer, tmp_path):
    """Two while they load, two between any two steps, one inside a checkpoint write."""
    run, seed = tmp_path / "small", random.randrange(10**6)
    first, second, third, _ = (run / "transcoders" / path.name for path in folders(longer[1]))
    rng = random.Random(seed)
    delays, strides = [rng.random() for _ in range(2)], [rng.randint(1, 70) for _ in range(2)]
    torn: list[Path] = []

    def in_that_order() -> None:
        kill_trainer(first, lambda: time.sleep(delays[0]))
        kill_trainer(first, lambda: steps_on(first, strides[0]))

    def in_the_other() -> None:
        kill_trainer(second, lambda: steps_on(second, strides[1]))
        kill_trainer(second, lambda: time.sleep(delays[1]))

    def inside_a_write() -> None:
        pid, path = freeze_inside(lambda: half_written(third))
        torn.append(path / DIGESTS)
        os.kill(pid, signal.SIGKILL)
        assert path.exists()

    with meanwhile(in_that_order, in_the_other, inside_a_write):
        code, printed = run_joined(cluster, longer[0], tmp_path, "resources.cells=3")
    assert code == 0, f"seed {seed}: {printed}"
    log = (run / "log.txt").read_text()
    assert log.count("it goes on from its last checkpoint in a new process") == 5, seed
    ended = end_of(run, 1)
    assert len(ended["replaced"]) == 5 and set(ended["replaced"]) == set(ended["forwards"])
    assert not torn[0].parent.exists()
    assert finals(run) == finals(longer[1]), f"seed {seed}"


@pytest.mark.chaos
def test_interrupted_on_two_cells_it_goes_on_with_three_one_or_none(cluster, longer, tmp_path):
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    for cells in (2, 3):
        stride = rng.randint(1, 30)
        code = _terminated(cluster, longer[0], tmp_path, stride, f"resources.cells={cells}")
        assert code == 128 + signal.SIGTERM, seed
    assert -1 < newest_step(tmp_path / "small") < STEPS, seed
    shutil.copytree(tmp_path / "small", tmp_path / "copy" / "small")
    assert run_here(longer[0], tmp_path / "copy")[0] == 0
    code, printed = run_joined(cluster, longer[0], tmp_path, "resources.cells=1")
    assert code == 0, printed
    assert finals(tmp_path / "copy" / "small") == finals(longer[1]), f"seed {seed}"
    assert finals(tmp_path / "small") == finals(longer[1]), f"seed {seed}"


def _terminated(cluster: str, manifest: Path, root: Path, stride: int, *overrides: str) -> int:
    """Run until so many steps are saved beyond those that were, and have it stop."""

    def terminate() -> None:
        steps_on(root / "small", stride)
        os.kill(os.getpid(), signal.SIGTERM)

    with harmless(signal.SIGTERM), meanwhile(terminate):
        return run_joined(cluster, manifest, root, *overrides, kind=Brisk)[0]
