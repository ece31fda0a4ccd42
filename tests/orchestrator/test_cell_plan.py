"""Plans with several cells: who gets what, on which device, and what that takes."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.manifest import load_manifest
from orchestrator.messages import ManifestError
from orchestrator.planning import costs
from orchestrator.planning.inventory import Gpu, Inventory
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.preflight import preflight, shortages
from tests.orchestrator.manifests import LINES, write_manifest
from tests.orchestrator.plans import BLOCK_FLOPS, TRAIN_FLOPS, gpt2, plan_of, with_gpus

ALL = {7: "  - {layers: all, source: resid_mid, target: mlp_out}"}


def cells_of(plan: Plan) -> list[tuple[str, str, int]]:
    return [(cell.name, cell.device, len(cell.transcoders)) for cell in plan.cells]


def with_cells(cells: int | str, device: str = "auto", threads: int = 1) -> dict[int, str]:
    return ALL | {8: f"resources: {{cells: {cells}, device: '{device}', threads: {threads}}}"}


def test_two_cells_share_gpt2_as_the_hand_says(tmp_path: Path) -> None:
    # k in the first: k (B + T) against 12 B + (12 - k) T; the larger is smallest at k = 10
    plan = plan_of(tmp_path, with_cells(2))
    assert cells_of(plan) == [("trainer-0[L00-L09]", "cpu", 10), ("trainer-1[L10-L11]", "cpu", 2)]
    first, second = plan.cells
    assert (first.forward_flops_per_token, first.train_flops_per_token) == (
        10 * BLOCK_FLOPS,
        10 * TRAIN_FLOPS,
    )
    assert second.flops_per_token == 12 * BLOCK_FLOPS + 2 * TRAIN_FLOPS
    assert (first.blocks_run, second.blocks_run) == (10, 12)
    assert (first.deepest, second.deepest) == ("9.mlp_out", "11.mlp_out")
    assert second.tensors == tuple(
        f"blocks.{layer}.hook_{kind}" for layer in (10, 11) for kind in ("resid_mid", "mlp_out")
    )


def test_the_forwards_of_all_cells_are_set_against_separate_ones(tmp_path: Path) -> None:
    forward = plan_of(tmp_path, with_cells(2)).forward
    assert (forward.blocks_run, forward.n_layers) == (12, 12)
    assert forward.flops_per_token == (10 + 12) * BLOCK_FLOPS
    assert forward.separate_flops_per_token == sum(range(13)) * BLOCK_FLOPS
    assert forward.train_flops_per_token == 12 * TRAIN_FLOPS


def test_cells_follow_the_depth_of_the_deepest_site_then_of_the_source(tmp_path: Path) -> None:
    entries = (
        "  - {source: 5.resid_mid, target: 5.mlp_out}\n"
        "  - {source: 0.resid_mid, target: 5.mlp_out}\n"
        "  - {source: 9.resid_post, target: 1.mlp_out}\n"
        "  - {source: 2.resid_mid, target: 2.mlp_out, k: [8, 16]}"
    )
    plan = plan_of(tmp_path, {7: entries, 8: "resources: {cells: 2, threads: 1}"})
    placed = [id.rpartition("-")[0] for cell in plan.cells for id in cell.transcoders]
    assert placed == [
        *["L02.resid_mid-L02.mlp_out"] * 2,
        "L00.resid_mid-L05.mlp_out",
        "L05.resid_mid-L05.mlp_out",
        "L09.resid_post-L01.mlp_out",
    ]
    assert [cell.name for cell in plan.cells] == ["trainer-0[L00-L05]", "trainer-1[L01-L09]"]
    assert [t.k for t in plan.transcoders] == [64, 64, 64, 8, 16]  # as in the manifest


def test_a_sweep_of_one_layer_may_be_cut_apart(tmp_path: Path) -> None:
    lines = {
        7: "  - {layers: 3, source: resid_mid, target: mlp_out, k: [8, 16, 32, 64]}",
        8: "resources: {cells: 2, threads: 1}",
    }
    plan = plan_of(tmp_path, lines)
    assert cells_of(plan) == [("trainer-0[L03]", "cpu", 2), ("trainer-1[L03]", "cpu", 2)]


@pytest.mark.parametrize("cells", range(1, 13))
def test_every_transcoder_is_placed_exactly_once(tmp_path: Path, cells: int) -> None:
    plan = plan_of(tmp_path, with_cells(cells))
    placed = [id for cell in plan.cells for id in cell.transcoders]
    assert sorted(placed) == sorted(t.id for t in plan.transcoders)
    assert len(plan.cells) == cells == len({cell.name for cell in plan.cells})
    again = plan_of(tmp_path, with_cells(cells))
    assert again == plan and json.dumps(again.to_dict()) == json.dumps(plan.to_dict())


def test_no_more_cells_than_transcoders(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {8: "resources: {cells: 5, threads: 1}"})
    assert [cell.name for cell in plan.cells] == ["trainer-0[L00]", "trainer-1[L01]"]
    assert plan.notes[-1] == "resources.cells: 2 instead of 5, one for each transcoder"


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_one_cell_for_each_gpu(tmp_path: Path, device: str) -> None:
    plan = plan_of(tmp_path, with_cells("auto", device), with_gpus(10**10, 10**10, 10**10))
    assert [cell.device for cell in plan.cells] == ["cuda:0", "cuda:1", "cuda:2"]
    assert (plan.device, plan.why.partition(",")[0]) == ("cuda:0-2", "3 GPUs")


def test_the_cpu_has_one_cell_until_more_are_asked_for(tmp_path: Path) -> None:
    gpus = with_gpus(10**10, 10**10)
    assert cells_of(plan_of(tmp_path, with_cells("auto"))) == [("trainer-0[L00-L11]", "cpu", 12)]
    assert len(plan_of(tmp_path, with_cells("auto", "cpu"), gpus).cells) == 1
    three = plan_of(tmp_path, with_cells(3, "cpu"), gpus)
    assert [cell.device for cell in three.cells] == ["cpu"] * 3
    assert (three.device, three.why.partition(",")[0]) == ("cpu", "3 processes")


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (with_cells(1), "idle: cuda:1-3 (resources.cells is 1)"),
        (with_cells(3, "cuda"), "idle: cuda:3 (resources.cells is 3)"),
        ({8: "seed: 0"}, "idle: cuda:2-3 (every transcoder has one)"),
    ],
)
def test_gpus_that_stay_idle_are_named(tmp_path: Path, lines: dict[int, str], note: str) -> None:
    assert plan_of(tmp_path, lines, with_gpus(*[10**10] * 4)).notes[-1] == note


def test_a_gpu_chosen_by_its_number_leaves_no_note(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, with_cells("auto", "cuda:1"), with_gpus(10**10, 10**10))
    assert cells_of(plan) == [("trainer-0[L00-L11]", "cuda:1", 12)]
    assert plan.device == "cuda:1"
    assert not any("idle" in note for note in plan.notes)


def test_more_cells_than_gpus_are_refused_where_the_key_stands(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as error:
        plan_of(tmp_path, with_cells(3, "cuda"), with_gpus(10**10, 10**10))
    assert str(error.value) == (
        f"{tmp_path}/m.yaml:8: resources.cells: 3 cells need a GPU each, and there are 2; use "
        "auto, or device: cpu"
    )
    # Fewer transcoders than GPUs: nothing is amiss.
    few = {8: "resources: {cells: 3}"}
    assert len(plan_of(tmp_path, few, with_gpus(10**10, 10**10)).cells) == 2


def test_gpus_that_nobody_has_looked_for_are_taken_to_be_there(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, with_cells(3, "cuda"))
    assert [cell.device for cell in plan.cells] == ["cuda:0", "cuda:1", "cuda:2"]
    assert shortages(plan, Inventory(4, 10**6, 10**12), tmp_path) == []
    others = tuple(note for note in plan.notes if "as fast" not in note)
    assert others == plan_of(tmp_path, with_cells("auto", "cuda")).notes
    too_many = plan_of(tmp_path, with_cells(15, "cuda"))
    assert not any("idle" in note for note in too_many.notes)


def test_more_threads_than_cores_are_noted_with_what_to_change(tmp_path: Path) -> None:
    crowded = plan_of(tmp_path, with_cells(3, threads=2)).notes[-1]
    assert crowded == (
        "3 cells with 2 threads each slow each other down on 4 cores; lower resources.cells, or "
        "set resources.threads to 1 before the run begins (it is part of the result)"
    )
    alone = plan_of(tmp_path, with_cells(1, threads=5)).notes[-1]
    assert alone == "5 threads on 4 cores slow each other down; lower resources.threads"
    for lines in (with_cells(2, threads=2), with_cells(4, threads=1)):
        assert not any("slow" in note for note in plan_of(tmp_path, lines).notes)
    on_gpus = plan_of(tmp_path, with_cells(2, threads=4), with_gpus(10**10, 10**10))
    assert not any("slow" in note for note in on_gpus.notes)


def test_cells_on_a_cpu_share_its_memory(tmp_path: Path) -> None:
    one, three = plan_of(tmp_path, with_cells(1)), plan_of(tmp_path, with_cells(3))
    alone = {part.what: part.bytes for part in one.memory}
    shared = {part.what: part.bytes for part in three.memory}
    same = ("block of activations", "transcoders with Adam and gradients")
    assert {what: shared[what] for what in same} == {what: alone[what] for what in same}
    for what in ("model weights", "forward pass", "Python and torch"):
        assert shared[f"{what}, 3 copies"] == 3 * alone[what]
    assert three.memory_bytes == costs.DRIVER_BYTES + sum(c.memory_bytes for c in three.cells)
    assert three.memory_device == one.memory_device == "cpu"
    enough_for_one = Inventory(4, one.memory_bytes, 10**12)
    with pytest.raises(ConfigError, match=r": lower train\.block_batches or resources\.cells$"):
        preflight(three, enough_for_one, tmp_path)
    small = plan_of(tmp_path, with_cells(3) | {4: "train: {tokens: 1M, batch_tokens: 512}"})
    with pytest.raises(ConfigError, match=r"model weights, 3 copies .*: lower resources\.cells$"):
        preflight(small, Inventory(4, 10**9, 10**12), tmp_path)
    preflight(three, Inventory(4, three.memory_bytes, 10**12), tmp_path)


def test_the_scores_of_eager_attention_are_in_the_memory_of_every_process(tmp_path: Path) -> None:
    """Of a run through the bridge; one hook that only that has takes all of the run there."""

    def forwards(lines: dict[int, str]) -> set[int]:
        plan = plan_of(tmp_path, lines)
        memories = [process.memory for process in (plan.producers or plan.cells)]
        return {part.bytes for memory in memories for part in memory if part.what == "forward pass"}

    lines, split = with_cells(2), "resources: {topology: split, producers: 2, threads: 1}"
    (fast,) = forwards(lines)
    scores = int(8.4 * 16 * 12 * 128**2)
    bridge = lines | {2: "model: {name: gpt2, provider: bridge}"}
    only_there = (
        "  - {source: 11.resid_mid, target: blocks.11.attn.hook_z, group_sizes: [64], k: 4}"
    )
    one_of_it = lines | {7: f"{lines.get(7, LINES[7])}\n{only_there}"}
    for eager in (bridge, one_of_it, bridge | {8: split}):
        assert forwards(eager) == {fast + scores}
    assert forwards(lines | {8: split}) == {fast}


def test_tensors_that_two_cells_read_are_held_by_both(tmp_path: Path) -> None:
    sweep = "  - {layers: 3, source: resid_mid, target: mlp_out, k: [8, 16]}"
    plan = plan_of(tmp_path, {7: sweep, 8: "resources: {cells: 2, threads: 1}"})
    blocks = {part.what: part.bytes for part in plan.memory}["block of activations"]
    assert blocks == 2 * (32_768 * 2 * 768 * 4)


def test_each_gpu_must_hold_its_own_cell(tmp_path: Path) -> None:
    lines = with_cells("auto")
    plan = plan_of(tmp_path, lines, with_gpus(10**11, 10**11))
    first, second = (cell.memory_bytes for cell in plan.cells)
    assert first > second
    assert (plan.memory_bytes, plan.memory_device) == (first, "cuda:0")
    preflight(plan, with_gpus(first, second), tmp_path)
    (lacking,) = shortages(plan, with_gpus(first, second - 1), tmp_path)
    assert lacking.startswith("not enough memory on cuda:1: needs")
    both = shortages(plan, with_gpus(first - 1, second - 1), tmp_path)
    assert [line.split(":")[1] for line in both] == ["0", "1"]
    # Nobody has looked at the second.
    unseen = (Gpu("H", 80 * 10**9, first - 1), Gpu("H", 80 * 10**9, None))
    assert len(shortages(plan, Inventory(4, 10**10, 10**12, unseen), tmp_path)) == 1


def test_totals_of_cells_are_in_the_json(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, with_cells(2))
    for cell, plain in zip(plan.cells, plan.to_dict()["cells"], strict=True):
        assert plain["flops_per_token"] == cell.flops_per_token
        assert plain["memory_bytes"] == cell.memory_bytes


def test_a_thousand_transcoders_for_64_gpus_are_planned_at_once(tmp_path: Path) -> None:
    seeds = ", ".join(map(str, range(84)))
    entries = {7: f"  - {{layers: all, source: resid_mid, target: mlp_out, seed: [{seeds}]}}"}
    manifest = load_manifest(write_manifest(tmp_path, entries))
    began = time.perf_counter()
    plan = make_plan(manifest, gpt2(), with_gpus(*[10**11] * 64))
    assert time.perf_counter() - began < 2
    assert (len(plan.transcoders), len(plan.cells)) == (1008, 64)
    assert len({id for cell in plan.cells for id in cell.transcoders}) == 1008


def test_models_that_load_on_a_small_machine_are_noted_and_refuse_nothing(tmp_path: Path) -> None:
    """Files of model.dtype are mapped: then they take no memory of their own."""
    four = with_gpus(*[10**11] * 4)
    small = replace(four, memory_bytes=10**9)
    plan = plan_of(tmp_path, with_cells("auto"), small)
    (told,) = [note for note in plan.notes if note.startswith("models are loaded on the CPU")]
    assert "2.0 GB for 4 at once, and 1.0 GB are free" in told and "resources.cells" in told
    preflight(plan, small, tmp_path)
    for roomy in (four, replace(small, driver_bytes=0), replace(small, node_cpus=(4,))):
        notes = plan_of(tmp_path, with_cells("auto"), roomy).notes
        assert not [note for note in notes if note.startswith("models are loaded")]
