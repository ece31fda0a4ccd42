"""Producers and cells on a cluster of several nodes: the bits of a run in one process; a store that
holds no more than the windows say; and who shares which GPU.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from orchestrator.ray_backend.actor import LOGICAL_GPUS
from tests.cluster.store import watched_stores
from tests.e2e.runs import finals, run_here, write_manifest
from tests.e2e.test_split import passes, split
from tests.ray.harm import meanwhile, newest_step, trainer_of, until
from tests.ray.joined import run_joined

pytestmark = pytest.mark.cluster
ROWS, WIDTH, SITES = 4096, 32, 6  # of a step; of the tiny model; of the three pairs of SLOW
STEP_BYTES = ROWS * WIDTH * SITES * 4
SLOW = "  - {layers: all, source: resid_mid, target: mlp_out, group_sizes: [1024, 1024]}"


@pytest.fixture(scope="module")
def three_nodes():
    """A head and two more, with two CPUs each; freed rows leave the stores at once."""
    settings = {"free_objects_period_milliseconds": 10}
    head = {"num_cpus": 2, "_system_config": settings, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.mark.parametrize(("producers", "cells"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_cluster_gives_the_bits_of_a_run_in_one_process(
    longer, three_nodes, tmp_path, producers, cells
):
    manifest, reference, printed_fused = longer
    code, printed = run_joined(three_nodes, manifest, tmp_path, *split(producers, cells))
    assert code == 0, printed
    assert finals(tmp_path / "small") == finals(reference)
    assert passes(printed) == passes(printed_fused)
    assert re.search("(sets the pace|keep pace)", printed), printed


@pytest.fixture(scope="module")
def slow(model, tmp_path_factory):
    """A run whose training takes much longer than its forward: one step of it is STEP_BYTES."""
    folder = tmp_path_factory.mktemp("slow")
    changes = {"name": "small", "tokens": ROWS * 40, "transcoders": SLOW}
    manifest = write_manifest(folder, model, **changes)
    manifest.write_text(manifest.read_text().replace("batch_tokens: 256", f"batch_tokens: {ROWS}"))
    code, printed = run_here(manifest, folder)
    assert code == 0, printed
    return manifest, folder / "small", printed


@pytest.mark.parametrize("prefetch", [1, 3])
def test_a_slow_cell_lets_the_store_grow_to_its_window_and_nothing_spills(
    slow, three_nodes, tmp_path, prefetch
):
    manifest, reference, printed_fused = slow
    steps_bytes = prefetch * STEP_BYTES
    overrides = split(1, 1, f"resources.prefetch_steps={prefetch}")
    with watched_stores() as held:
        code, printed = run_joined(three_nodes, manifest, tmp_path, *overrides)
    assert code == 0, printed
    assert finals(tmp_path / "small") == finals(reference)
    assert passes(printed) == passes(printed_fused)
    assert held.spilled_bytes == 0 and held.asked > 100
    # What is freed leaves the store some ms later: one more step at most is there by then.
    assert (prefetch - 0.5) * STEP_BYTES < held.most_bytes < steps_bytes + 1.5 * STEP_BYTES, held
    assert "training sets the pace: trainer-0" in printed


def at_rest(folder: Path) -> int:
    """The newest step of a transcoder, when it has been that for two seconds: no longer, for Ray
    waits for the stopped process where it is asked for its stores, five seconds at most."""
    newest, since = newest_step(folder), time.monotonic()
    while time.monotonic() - since < 2:
        time.sleep(0.05)
        if (now := newest_step(folder)) != newest:
            newest, since = now, time.monotonic()
    return newest


def test_a_cell_that_stands_still_stops_the_producer_and_the_other_cell(
    slow, three_nodes, tmp_path
):
    """While it is stopped the others come as far as its window, and there they stay."""
    manifest, reference, printed_fused = slow
    run, overrides = tmp_path / "small", split(1, 2, "resources.prefetch_steps=3")
    went: list[int] = []

    def stop_one() -> None:
        first, *_, last = sorted(run.glob("transcoders/*"))
        until(lambda: newest_step(first) > 5, "some steps")
        victim = trainer_of(first)
        assert victim != trainer_of(last)
        os.kill(victim, signal.SIGSTOP)
        went.append(at_rest(last) - newest_step(first))
        os.kill(victim, signal.SIGCONT)

    def when_it_trains() -> None:
        until(lambda: newest_step(run) > 0, "training")
        stop_one()

    with watched_stores() as held, meanwhile(when_it_trains):
        code, printed = run_joined(three_nodes, manifest, tmp_path, *overrides)
    assert code == 0, printed
    assert went[0] <= 4  # of 40: what the window holds, and the step that the stopped one is in
    assert finals(run) == finals(reference)
    assert passes(printed) == passes(printed_fused), printed
    assert held.spilled_bytes == 0 and held.most_bytes < 4.5 * STEP_BYTES, held


@pytest.fixture
def logical_gpus(monkeypatch):
    """A cluster with two GPUs on one node that are mere numbers: there is none here."""
    monkeypatch.setenv(LOGICAL_GPUS, "1")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=4, num_gpus=2)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def test_a_producer_and_a_cell_share_each_gpu_by_fractions(longer, logical_gpus, tmp_path):
    manifest, reference, _ = longer
    overrides = ("resources.topology=split", "resources.device=cuda", "model.forward_contexts=16")
    code, printed = run_joined(logical_gpus, manifest, tmp_path, *overrides)
    assert code == 0, printed
    log = (tmp_path / "small" / "log.txt").read_text()
    gpus = dict(re.findall(r"((?:producer|trainer)-\d)\S* runs on \S+, GPU (\d)", log))
    assert gpus["producer-0"] == gpus["trainer-0"] != gpus["producer-1"] == gpus["trainer-1"], log
    plan = json.loads((tmp_path / "small" / "plan.json").read_text())
    for producer, cell in zip(plan["producers"], plan["cells"], strict=True):
        assert producer["device"] == cell["device"]
        assert 0 < producer["gpu_share"] < 1
        assert producer["gpu_share"] + cell["gpu_share"] == pytest.approx(1)
    assert finals(tmp_path / "small") == finals(reference)  # computed on the CPU, as said
