"""Fused or split, with how many processes, and on which devices: plans of GPT-2 small on machines
that are written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.messages import ManifestError
from orchestrator.planning.inventory import Gpu, Inventory
from orchestrator.planning.plan import Plan
from orchestrator.planning.preflight import preflight, shortages
from tests.orchestrator.plans import BLOCK_FLOPS, ROOMY, TRAIN_FLOPS, plan_of, with_gpus
from tests.orchestrator.test_cell_plan import ALL

SPLIT = "resources: {topology: split, threads: 1"


def split(tmp_path: Path, more: str = "", inventory: Inventory = ROOMY, **lines: str) -> Plan:
    return plan_of(tmp_path, {**ALL, 8: f"{SPLIT}{more}}}"}, inventory)


def devices(plan: Plan) -> tuple[list[str], list[str]]:
    return [p.device for p in plan.producers], [c.device for c in plan.cells]


def test_producers_share_the_blocks_and_cells_only_train(tmp_path: Path) -> None:
    plan = split(tmp_path, ", producers: 2, cells: 3")
    assert plan.topology == "split" and plan.exchange
    assert [p.name for p in plan.producers] == ["producer-0", "producer-1"]
    assert [p.flops_per_token for p in plan.producers] == [6 * BLOCK_FLOPS] * 2
    assert plan.forward.flops_per_token == 12 * BLOCK_FLOPS
    assert [c.name for c in plan.cells] == [
        "trainer-0[L00-L03]",
        "trainer-1[L04-L07]",
        "trainer-2[L08-L11]",
    ]
    assert {(c.flops_per_token, c.blocks_run, c.gpu_share) for c in plan.cells} == {
        (4 * TRAIN_FLOPS, 0, 0.0)
    }
    assert {len(p.tensors) for p in plan.producers} == {24}
    assert {len(c.tensors) for c in plan.cells} == {8}


def test_no_producer_is_without_a_block(tmp_path: Path) -> None:
    short = {4: "train: {tokens: 81_920}"}  # ten steps, four to a block
    plan = plan_of(tmp_path, {**ALL, **short, 8: f"{SPLIT}, producers: 10_000}}"})
    assert len(plan.producers) == 3
    assert "resources.producers: 3 instead of 10000, one for each block of text" in plan.notes


def test_the_store_holds_two_windows_of_every_producer(tmp_path: Path) -> None:
    step = 8192 * 24 * 768 * 4
    plan = split(tmp_path, ", producers: 2")
    assert plan.exchange and plan.exchange.prefetch_steps == 4  # as many as block_batches
    assert plan.exchange.portion_bytes == step
    assert plan.exchange.store_bytes == pytest.approx(2 * (2 * 4 + 1) * step / 0.8)
    plan = split(tmp_path, ", producers: 2, prefetch_steps: 1")
    assert plan.exchange and plan.exchange.store_bytes == pytest.approx(2 * 3 * step / 0.8)
    (store,) = [part for part in plan.memory if part.what == "object store"]
    assert (store.bytes, store.key) == (plan.exchange.store_bytes, "resources.prefetch_steps")


def test_memory_is_that_of_all_processes_and_only_producers_hold_the_model(tmp_path: Path) -> None:
    plan = split(tmp_path, ", producers: 2, cells: 3")
    parts = {part.what: part for part in plan.memory}
    assert parts["model weights, 2 copies"].key == "resources.producers"
    assert parts["Python and torch, 5 copies"].bytes == 5 * 400 * 10**6
    each = sum(p.memory_bytes for p in (*plan.producers, *plan.cells))
    assert plan.memory_bytes == each + plan.exchange.store_bytes + ROOMY.driver_bytes


def test_too_little_shared_memory_is_told_with_the_key(tmp_path: Path) -> None:
    plan = split(tmp_path)
    tight = replace(ROOMY, shared_bytes=10**9)
    (lacking,) = shortages(plan, tight, tmp_path)
    assert lacking.startswith("not enough shared memory on /dev/shm")
    assert lacking.endswith("lower resources.prefetch_steps")
    with pytest.raises(ConfigError, match="shared memory"):
        preflight(plan, tight, tmp_path)
    assert not shortages(plan, replace(ROOMY, shared_bytes=10**11), tmp_path)


def test_every_gpu_has_a_producer_and_a_cell_with_a_fraction_each(tmp_path: Path) -> None:
    plan = split(tmp_path, inventory=with_gpus(*[70 * 10**9] * 4))
    assert devices(plan) == ([f"cuda:{i}" for i in range(4)],) * 2
    for producer, cell in zip(plan.producers, plan.cells, strict=True):
        assert producer.gpu_share + cell.gpu_share == pytest.approx(1)
        assert cell.gpu_share == pytest.approx(
            cell.flops_per_token / (cell.flops_per_token + producer.flops_per_token), abs=0.01
        )
    assert plan.memory_device in ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert set(plan.memories) == {"cpu", "cuda:0", "cuda:1", "cuda:2", "cuda:3"}
    assert [part.what for part in plan.memories["cpu"]] == ["object store"]


def test_producers_go_where_no_cell_is_before_they_share(tmp_path: Path) -> None:
    gpus = with_gpus(*[70 * 10**9] * 4)
    plan = split(tmp_path, ", cells: 2, producers: 2", gpus)
    assert devices(plan) == (["cuda:2", "cuda:3"], ["cuda:0", "cuda:1"])
    assert {p.gpu_share for p in plan.producers} == {c.gpu_share for c in plan.cells} == {1.0}
    plan = split(tmp_path, ", cells: 3, producers: 2", gpus)
    assert devices(plan) == (["cuda:0", "cuda:3"], ["cuda:0", "cuda:1", "cuda:2"])
    # The cell that shares its GPU has less to do.
    assert len(plan.cells[0].transcoders) < len(plan.cells[2].transcoders)
    with pytest.raises(ManifestError, match="5 producers need a GPU each, and there are 4"):
        split(tmp_path, ", producers: 5", gpus)


def test_of_gpus_with_different_memory_the_roomiest_are_taken_and_filled(tmp_path: Path) -> None:
    gpus = with_gpus(10**9, 60 * 10**9, 20 * 10**9)
    plan = plan_of(tmp_path, {**ALL, 8: "resources: {cells: 1}"}, gpus)
    assert [cell.device for cell in plan.cells] == ["cuda:1"]
    assert "idle: cuda:0, cuda:2 (resources.cells is 1)" in plan.notes
    uneven = with_gpus(2 * 10**9, 60 * 10**9)
    plan = plan_of(tmp_path, {**ALL, 8: "resources: {cells: 2}"}, uneven)
    assert not shortages(plan, uneven, tmp_path)
    assert plan.cells[0].memory_bytes <= 2 * 10**9 < plan.cells[1].memory_bytes


def test_one_device_is_fused_whatever_is_predicted(tmp_path: Path) -> None:
    for inventory in (ROOMY, with_gpus(70 * 10**9)):
        plan = plan_of(tmp_path, {**ALL}, inventory)
        assert plan.topology == "fused" and set(plan.predicted) == {"fused", "split"}
    plan = plan_of(tmp_path, {**ALL, 8: "resources: {producers: 1, threads: 1}"})
    assert plan.topology == "split"  # a number of producers names it


def test_a_cluster_of_cpus_is_used_by_the_topology_that_is_predicted_to_be_faster(
    tmp_path: Path,
) -> None:
    cluster = replace(ROOMY, node_cpus=(4, 4, 4))
    plan = plan_of(tmp_path, {**ALL, 8: "resources: {threads: 2}"}, cluster)
    fused, other = plan.predicted["fused"], plan.predicted["split"]
    assert plan.topology == "split"
    assert other.tokens_per_second > 1.05 * fused.tokens_per_second
    assert len(plan.cells) + len(plan.producers) <= 6  # of two threads each
    assert "fused would be" in plan.why and "x slower by prediction" in plan.why
    named = plan_of(tmp_path, {**ALL, 8: "resources: {threads: 2, topology: fused}"}, cluster)
    assert named.topology == "fused"
    assert named.predicted["fused"] == fused


def test_a_slow_network_keeps_gpus_of_several_nodes_fused(tmp_path: Path) -> None:
    gpus = tuple(Gpu("NVIDIA H200", 141 * 10**9, 140 * 10**9) for _ in range(8))
    nodes = Inventory(None, None, None, gpus, node_gpus=4)
    plan = plan_of(tmp_path, ALL, nodes)
    assert plan.topology == "fused" and plan.predicted["split"].slowest == (
        "what carries rows between processes"
    )
    assert plan.predicted["fused"].known
    unknown = replace(nodes, gpus=tuple(replace(gpu, name="X") for gpu in gpus))
    assert not plan_of(tmp_path, ALL, unknown).predicted["fused"].known


def test_more_processes_than_cores_share_them(tmp_path: Path) -> None:
    two = replace(ROOMY, cores=2)
    alone = split(tmp_path, "", two).predicted["split"].tokens_per_second
    crowded = split(tmp_path, ", producers: 2, cells: 2", two).predicted["split"].tokens_per_second
    roomy = split(tmp_path, ", producers: 2, cells: 2").predicted["split"].tokens_per_second
    assert crowded < 1.2 * alone and roomy > 1.5 * alone
