"""Fused or split, with how many processes, and on which devices: plans of GPT-2 small on machines
that are written down."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from mtc_core import cpu as cpu_module
from mtc_core.cpu import Cpu
from mtc_core.errors import ConfigError
from orchestrator.messages import ManifestError
from orchestrator.planning.inventory import Gpu, Inventory, take_inventory
from orchestrator.planning.plan import Plan
from orchestrator.planning.predict import Prediction
from orchestrator.planning.preflight import preflight, shortages
from orchestrator.planning.rates import gpu_rates
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
    assert [p.name for p in plan.producers] == ["producer-0[L00-L11]", "producer-1[L00-L11]"]
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
    lines = {2: "model: {name: gpt2, forward_contexts: 16}", 8: "resources: {cells: 2}"}
    plan = plan_of(tmp_path, {**ALL, **lines}, uneven)
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


def test_a_cluster_of_cpus_gets_no_more_processes_than_it_has_slots_for(tmp_path: Path) -> None:
    cluster = replace(ROOMY, node_cpus=(5, 5))  # two slots each, of two threads
    for cells in (1, 2, 3, 4, "auto"):
        lines = {**ALL, 8: f"resources: {{threads: 2, cells: {cells}}}"}
        plan = plan_of(tmp_path, lines, cluster)
        assert len(plan.cells) + len(plan.producers) <= 4
        assert cells in ("auto", len(plan.cells))
        if cells == 4:
            assert set(plan.predicted) == {"fused"}  # there is no room for a producer
    lines = {**ALL, 8: "resources: {threads: 2, cells: 4, topology: split}"}
    plan = plan_of(tmp_path, lines, cluster)
    assert (len(plan.cells), len(plan.producers)) == (4, 1)  # as it was asked


def test_a_cluster_of_cpus_with_little_memory_gets_fewer_processes(tmp_path: Path) -> None:
    lines = {**ALL, 8: "resources: {threads: 1}"}
    cluster = replace(ROOMY, node_cpus=(4, 4, 4))
    most = plan_of(tmp_path, lines, cluster)
    assert len(most.cells) + len(most.producers) > 6
    little = replace(cluster, memory_bytes=12 * 10**9)
    plan = plan_of(tmp_path, lines, little)
    assert plan.topology == "fused" and not shortages(plan, little, tmp_path)
    least = plan_of(tmp_path, lines, replace(cluster, memory_bytes=10**9))
    assert (least.topology, len(least.cells)) == ("fused", 1)


def test_of_layouts_that_are_about_as_fast_the_one_with_fewest_processes_is_taken(
    tmp_path: Path,
) -> None:
    """One transcoder keeps one producer busy, not eleven."""
    one = {7: "  - {source: 11.resid_mid, target: 11.mlp_out, group_sizes: [65536]}"}
    cluster = replace(ROOMY, node_cpus=(4, 4, 4))
    plan = plan_of(tmp_path, {**one, 8: "resources: {threads: 1, topology: split}"}, cluster)
    paces = {
        count: plan_of(
            tmp_path,
            {**one, 8: f"resources: {{threads: 1, producers: {count}, cells: 1}}"},
            cluster,
        ).predicted["split"]
        for count in range(1, 12)
    }
    best = max(pace.tokens_per_second for pace in paces.values())
    enough = [count for count, pace in paces.items() if pace.tokens_per_second * 1.05 >= best]
    assert len(plan.producers) == min(enough) < 11


def test_a_large_cluster_of_cpus_is_planned_at_once(tmp_path: Path) -> None:
    began = time.perf_counter()
    cluster = replace(ROOMY, node_cpus=(4,) * 64)
    plan = plan_of(tmp_path, {**ALL, 8: "resources: {threads: 1}"}, cluster)
    assert time.perf_counter() - began < 2.0
    assert len(plan.producers) & (len(plan.producers) - 1) == 0  # not every number is tried


def test_producers_take_the_gpus_without_a_cell_where_that_is_faster(tmp_path: Path) -> None:
    one = {7: "  - {source: 11.resid_mid, target: 11.mlp_out, group_sizes: [65536]}"}
    lines = {**one, 8: "resources: {topology: split}"}
    plan = plan_of(tmp_path, lines, with_gpus(*[70 * 10**9] * 4))
    assert devices(plan) == (["cuda:1", "cuda:2", "cuda:3"], ["cuda:0"])


def test_on_one_gpu_that_is_named_the_others_are_not_counted(tmp_path: Path) -> None:
    lines = {**ALL, 8: "resources: {topology: split, device: 'cuda:1', cells: 1}"}
    plan = plan_of(tmp_path, lines, with_gpus(*[70 * 10**9] * 4))
    assert devices(plan) == (["cuda:1"], ["cuda:1"])


def test_why_not_the_other_topology(tmp_path: Path) -> None:
    cluster = replace(ROOMY, node_cpus=(4, 4, 4))
    assert "slower by prediction" in plan_of(tmp_path, ALL, cluster).why
    gpus = tuple(Gpu("NVIDIA H100", 80 * 10**9, 80 * 10**9) for _ in range(4))
    one = {7: "  - {source: 6.resid_mid, target: 6.mlp_out}"}
    assert plan_of(tmp_path, one, replace(ROOMY, gpus=gpus)).topology == "split"
    tight = plan_of(tmp_path, one, replace(ROOMY, gpus=gpus, memory_bytes=10**8))
    assert tight.topology == "fused" and tight.why.endswith("; split would not fit")
    unknown = plan_of(tmp_path, one, with_gpus(*[70 * 10**9] * 4))
    assert unknown.topology == "fused"
    assert unknown.why.endswith("; split may be faster, but how fast these GPUs are is not known")
    asked = plan_of(tmp_path, {**ALL, 8: "resources: {producers: 1, threads: 1}"})
    assert asked.why.endswith("; resources.producers asks for it")
    here = plan_of(tmp_path, {**ALL, 8: "resources: {cells: 2, threads: 1}"})
    assert here.topology == "fused"
    assert here.why.endswith("; split would be faster by prediction (resources.topology: split)")


def test_every_gpu_has_its_own_speed_and_all_must_be_known(tmp_path: Path) -> None:
    def of(*names: str) -> Prediction:
        gpus = tuple(Gpu(name, 80 * 10**9, 80 * 10**9) for name in names)
        return plan_of(tmp_path, ALL, replace(ROOMY, gpus=gpus)).predicted["fused"]

    assert of("NVIDIA H100 80GB HBM3", "Tesla T4").tokens_per_second < (
        of("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3").tokens_per_second
    )
    assert of("Tesla T4", "NVIDIA H100 PCIe").known and not of("NVIDIA H100 PCIe", "X").known
    assert not of("NVIDIA L40").known  # which is no L4
    assert gpu_rates("Tesla T4", "float32")[0].dense_flops < 8.1e12


def test_a_cpu_is_known_by_its_name_and_another_only_compares(tmp_path: Path) -> None:
    def of(name: str, *flags: str, family: int = 0) -> Prediction:
        cpu = Cpu(name, family=family, flags=frozenset(flags))
        return plan_of(tmp_path, ALL, replace(ROOMY, cpu=cpu)).predicted["fused"]

    zen4, zen5 = (of("AMD EPYC 9B14", "avx512f", family=family) for family in (25, 26))
    xeon = of("Intel(R) Xeon(R) Processor", "avx2", "avx512f")
    assert zen4.known and zen5.known and xeon.known
    assert zen5.tokens_per_second > 1.5 * zen4.tokens_per_second
    for other in ("", "Apple M4", "Intel(R) Xeon(R) CPU E5-2670", "AMD EPYC 7R13"):
        assert of(other) == of("Some CPU") not in (zen4, zen5, xeon) and not of(other).known
    cluster = replace(ROOMY, node_cpus=(4, 4, 4), cpu=Cpu("Apple M4"))
    assert plan_of(tmp_path, ALL, cluster).topology == "split"  # that much is known


def test_this_machine_tells_its_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu_module, "_INFO", info)
    assert take_inventory(tmp_path).cpu == Cpu()
    info.write_text(
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
        "model name\t: AMD EPYC 9B14\nflags\t\t: fpu avx512f\n\nprocessor\t: 1\n"
    )
    flags = frozenset({"fpu", "avx512f"})
    assert take_inventory(tmp_path).cpu == Cpu("AMD EPYC 9B14", "AuthenticAMD", 25, flags)
    info.write_text("CPU architecture: 8\nCPU part\t: 0xd40\n")  # an Arm's
    assert take_inventory(tmp_path).cpu == Cpu()


def test_nobody_runs_further_ahead_than_the_run_is_long(tmp_path: Path) -> None:
    two_steps = {4: "train: {tokens: 16_384}"}
    plan = plan_of(tmp_path, {**ALL, **two_steps, 8: f"{SPLIT}, prefetch_steps: 500}}"})
    assert plan.exchange and plan.exchange.prefetch_steps == 2


def test_a_producer_that_has_nothing_to_compute_is_given_some_of_its_gpu(tmp_path: Path) -> None:
    embedded = {7: "  - {source: hook_embed, target: hook_pos_embed}"}
    lines = {**embedded, 8: "resources: {topology: split}"}
    plan = plan_of(tmp_path, lines, with_gpus(70 * 10**9))
    assert (plan.producers[0].gpu_share, plan.cells[0].gpu_share) == (0.05, 0.95)


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
    slowest = split(tmp_path, ", producers: 2, cells: 2", two).predicted["split"].slowest
    assert slowest == "the number of cores"
