"""Plans against numbers worked out by hand, for GPT-2 small (width 768, 12 layers)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from mtc_core.model.model_shape import ModelShape
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.text import text_bytes_here
from orchestrator.messages import ManifestError
from orchestrator.planning import costs
from orchestrator.planning import inventory as inventory_module
from orchestrator.planning.inventory import Inventory, gpus_here, take_inventory
from orchestrator.planning.preflight import bytes_under, human_bytes, preflight, shortages
from tests.orchestrator.plans import BLOCK_FLOPS, ROOMY, TRAIN_FLOPS, plan_of, with_gpus


def test_a_transcoder_costs_what_the_hand_says(tmp_path: Path) -> None:
    first = plan_of(tmp_path).transcoders[0]
    # F = 2304, d = 768, k = 64, m = 2
    assert (first.d_in, first.d_out, first.d_sae, first.k) == (768, 768, 2304, 64)
    assert first.cost.params == 3_542_016
    ridge, counters = 8 * 769 * 1537, 8 * 2304
    assert first.cost.state_bytes == 16 * 3_542_016 + ridge + counters
    assert first.cost.checkpoint_bytes == 12 * 3_542_016 + ridge + counters
    assert first.cost.final_bytes == 4 * (3_542_016 + 2304 + 768 * 768)
    assert first.cost.flops_per_token == TRAIN_FLOPS == 3_538_944 + 98_304 + 294_912 + 4_608


def test_one_forward_is_set_against_separate_ones(tmp_path: Path) -> None:
    forward = plan_of(tmp_path).forward
    assert (forward.blocks_run, forward.n_layers) == (2, 12)
    assert forward.flops_per_token == 2 * BLOCK_FLOPS
    assert forward.separate_flops_per_token == (1 + 2) * BLOCK_FLOPS
    assert forward.train_flops_per_token == 2 * TRAIN_FLOPS
    assert forward.share == pytest.approx(29_097_984 / (29_097_984 + 7_873_536))


def test_steps_rows_and_blocks(tmp_path: Path) -> None:
    schedule = plan_of(tmp_path, stored_rows=500_000).schedule
    assert (schedule.steps, schedule.rows) == (122, 122 * 8192)
    assert (schedule.blocks, schedule.block_rows) == (31, 32_768)
    assert schedule.passes == pytest.approx(999_424 / 500_000)


def test_memory_by_part(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    memory = {part.what: part.bytes for part in plan.memory}
    assert memory["model weights"] == 4 * (12 * 7_077_888 + 768 * (50_257 + 1024))
    assert memory["block of activations"] == 32_768 * 4 * 768 * 4
    states = [t.cost.state_bytes for t in plan.transcoders]
    assert memory["transcoders with Adam and gradients"] == sum(states)
    # 2 F of latents, 2 m d of prefixes, raw and scaled rows of two sites
    assert memory["one step"] == 8192 * 4 * (2 * 2304 + 2 * 2 * 768 + 2 * 1536)
    assert plan.memory_bytes == sum(memory.values())


def test_half_precision_halves_the_model_alone(tmp_path: Path) -> None:
    full = {p.what: p.bytes for p in plan_of(tmp_path).memory}
    half_lines = {2: "model: {name: gpt2, dtype: bfloat16}"}
    half = {p.what: p.bytes for p in plan_of(tmp_path, half_lines).memory}
    differing = {what for what in full if full[what] != half[what]}
    assert differing == {"model weights", "forward pass"}
    assert full["model weights"] == 2 * half["model weights"]


def test_disk_by_part(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {8: "resources: {checkpoint_keep: 4}"})
    disk = {part.what: part.bytes for part in plan.disk}
    contexts = 7875  # of 127 rows each, for a million rows
    assert disk["tokens"] == 5 * (contexts * 128 + 65_536)
    assert disk["checkpoints"] == (4 + 1) * sum(t.cost.checkpoint_bytes for t in plan.transcoders)
    assert disk["final weights"] == 2 * 4 * (3_542_016 + 2304 + 768 * 768)


def test_text_that_repeats_is_stored_once(tmp_path: Path) -> None:
    tokens = {part.what: part.bytes for part in plan_of(tmp_path, stored_rows=12_700).disk}
    assert tokens["tokens"] == 5 * (100 * 128 + 65_536)


def test_text_is_never_planned_to_have_more_tokens_than_bytes(tmp_path: Path) -> None:
    short = {part.what: part.bytes for part in plan_of(tmp_path, text_bytes=12_700).disk}
    assert short["tokens"] == 5 * (100 * 128 + 65_536)
    assert plan_of(tmp_path, text_bytes=10**12).disk == plan_of(tmp_path).disk


def test_bytes_of_text_are_known_for_plain_local_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("seven..")
    (tmp_path / "b.jsonl").write_text("{}")
    assert text_bytes_here(DataConfig(path=str(tmp_path))) == 9
    (tmp_path / "c.jsonl.gz").write_bytes(b"compressed text has more tokens than bytes")
    assert text_bytes_here(DataConfig(path=str(tmp_path))) is None
    assert text_bytes_here(DataConfig(path=str(tmp_path / "not there.txt"))) is None
    assert text_bytes_here(DataConfig(path="some/dataset")) is None


@pytest.mark.parametrize(
    ("stored_rows", "words"),
    [
        (None, ""),
        (500_000, "2.0 passes over 500,000 rows of text"),
        (999_424, "1.0 passes over 999,424 rows of text"),
        (25_000_000, "part of one pass (0.04) over 25,000,000 rows of text"),
    ],
)
def test_passes_over_the_text_read_well(
    tmp_path: Path, stored_rows: int | None, words: str
) -> None:
    assert plan_of(tmp_path, stored_rows=stored_rows).schedule.reading == words


def test_a_tensor_with_two_names_is_captured_once(tmp_path: Path) -> None:
    entries = (
        "  - {source: 0.resid_mid, target: 0.resid_post}\n"
        "  - {source: 1.resid_pre, target: 1.mlp_out}"
    )
    plan = plan_of(tmp_path, {7: entries})
    (cell,) = plan.cells
    assert cell.tensors == (
        "blocks.0.hook_resid_mid",
        "blocks.0.hook_resid_post",
        "blocks.1.hook_mlp_out",
    )
    assert {p.what: p.bytes for p in plan.memory}["block of activations"] == 32_768 * 3 * 768 * 4


def test_resid_pre_needs_no_block_of_its_own_layer(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {7: "  - {source: 2.resid_mid, target: 5.resid_pre}"})
    assert (plan.cells[0].deepest, plan.cells[0].blocks_run) == ("5.resid_pre", 5)


def test_one_fused_cell_holds_everything_and_is_named_for_its_layers(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {7: "  - {layers: [2, 9], source: resid_mid, target: mlp_out}"})
    (cell,) = plan.cells
    assert (plan.topology, cell.name, cell.device) == ("fused", "trainer-0[L02-L09]", "cpu")
    assert cell.transcoders == tuple(t.id for t in plan.transcoders)


def test_a_plan_is_json_and_a_pure_function(tmp_path: Path) -> None:
    one, two = plan_of(tmp_path).to_dict(), plan_of(tmp_path).to_dict()
    assert one == two
    assert json.loads(json.dumps(one))["memory_bytes"] == plan_of(tmp_path).memory_bytes


def test_a_hook_of_unknown_width_is_noted(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {7: "  - {source: 0.resid_mid, target: blocks.0.attn.hook_q}"})
    assert any("blocks.0.attn.hook_q: its width is known once" in note for note in plan.notes)


def test_threads_and_device_follow_manifest_and_machine(tmp_path: Path) -> None:
    with_gpu = with_gpus(70 * 10**9)
    assert (plan_of(tmp_path).threads, plan_of(tmp_path).device) == (4, "cpu")
    assert plan_of(tmp_path, inventory=with_gpu).device == "cuda:0"
    fixed = {8: "resources: {threads: 2, device: cpu}"}
    assert (plan_of(tmp_path, fixed).threads, plan_of(tmp_path, fixed, with_gpu).device) == (
        2,
        "cpu",
    )
    with pytest.raises(ManifestError, match=r"resources.device: \"cuda:1\" is not here"):
        plan_of(tmp_path, {8: "resources: {device: cuda:1}"}, with_gpu)


def test_a_model_that_turns_out_to_lack_a_layer_is_refused(tmp_path: Path) -> None:
    lines = {
        2: "model: {name: nobody/nothing}",
        7: "  - {layers: 0-12, source: resid_mid, target: mlp_out}",
    }
    with pytest.raises(ManifestError, match=r"m\.yaml:7: transcoders\[0\]\.layers: layer 12"):
        plan_of(tmp_path, lines)


def test_preflight_passes_what_fits(tmp_path: Path) -> None:
    preflight(plan_of(tmp_path), ROOMY, tmp_path)


def test_too_little_memory_names_bytes_part_and_key(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    with pytest.raises(ConfigError) as error:
        preflight(plan, Inventory(4, 10**9, 10**12), tmp_path)
    assert str(error.value) == (
        f"not enough memory on cpu: needs {human_bytes(plan.memory_bytes)}, 1.0 GB available; "
        "the largest part to lower is model weights (497 MB): set model.dtype: bfloat16"
    )


def test_the_largest_part_decides_the_key(tmp_path: Path) -> None:
    small = Inventory(4, 10**6, 10**6)
    big_blocks = plan_of(tmp_path, {4: "train: {tokens: 1M, block_batches: 64}"})
    sizes = {5: "defaults: {group_sizes: [50_000], k: 64}"}
    big_steps = plan_of(tmp_path, sizes)
    big_sizes = plan_of(tmp_path, sizes | {4: "train: {tokens: 1M, batch_tokens: 512}"})
    assert shortages(big_blocks, small, tmp_path)[0].endswith("lower train.block_batches")
    assert shortages(big_steps, small, tmp_path)[0].endswith("lower train.batch_tokens")
    assert shortages(big_sizes, small, tmp_path)[0].endswith("lower group_sizes")
    assert shortages(big_sizes, small, tmp_path)[1].endswith("lower resources.checkpoint_keep")


def test_what_a_run_has_written_counts_as_disk_it_has(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    lacking = Inventory(4, 64 * 10**9, plan.disk_bytes - 10_000)
    with pytest.raises(ConfigError, match=f"not enough disk on {tmp_path}/t"):
        preflight(plan, lacking, tmp_path)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokens").write_bytes(bytes(10_000))
    preflight(plan, lacking, tmp_path)


def test_files_that_vanish_while_they_are_counted_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stays").write_bytes(bytes(7))
    (tmp_path / "goes").write_bytes(bytes(5))
    walk = os.walk

    def walk_while_another_deletes(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for entry in walk(folder):
            (tmp_path / "goes").unlink()
            yield entry

    monkeypatch.setattr(os, "walk", walk_while_another_deletes)
    assert bytes_under(tmp_path) == 7
    assert bytes_under(tmp_path / "absent") == 0


def test_the_gpu_is_what_must_hold_a_plan_for_it(tmp_path: Path) -> None:
    little = with_gpus(10**9)
    plan = plan_of(tmp_path, inventory=little)
    with pytest.raises(ConfigError, match="not enough memory on cuda:0"):
        preflight(plan, little, tmp_path)


def test_the_inventory_of_this_machine_is_plausible(tmp_path: Path) -> None:
    inventory = take_inventory(tmp_path / "not" / "yet" / "there")
    with pytest.raises(ConfigError, match=r"cannot be read .*choose another --root"):
        take_inventory(tmp_path / ("x" * 300))
    assert inventory.cores >= 1
    assert inventory.memory_bytes > 10**8
    assert inventory.disk_bytes > 0
    assert inventory.gpus is None


def test_only_gpus_that_may_be_used_are_woken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are none here: the process that looks finds a torch which says that there are three."""
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace\n"
        "cuda = SimpleNamespace(\n"
        "    device_count=lambda: 3,\n"
        "    get_device_properties=lambda _: SimpleNamespace(name='H', total_memory=80),\n"
        "    mem_get_info=lambda index: (70 + index, 80),\n"
        ")\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(inventory_module, "_GPU_DRIVERS", [str(tmp_path)])

    def free(device: str) -> list[int | None]:
        return [gpu.free_bytes for gpu in take_inventory(tmp_path, device).gpus or ()]

    assert free("auto") == free("cuda") == [70, 71, 72]
    assert free("cuda:2") == [None, None, 72]
    assert free("cpu") == []
    (tmp_path / "torch.py").write_text("raise RuntimeError('no driver')")
    with pytest.raises(ConfigError, match=r"looked at: RuntimeError: no driver; .*nvidia-smi"):
        free("auto")


def test_without_a_driver_nobody_looks_for_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory_module, "_GPU_DRIVERS", [])
    assert not gpus_here()
    assert take_inventory(tmp_path, "auto").gpus == ()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (85_100_000, "85.1 MB"), (10**15, "1000 TB")],
)
def test_bytes_read_well(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_a_mixture_needs_memory_for_all_experts_and_time_for_those_that_a_token_takes() -> None:
    sizes = {"num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16}
    known = {"hidden_size": 2048, "num_attention_heads": 16, "vocab_size": 50_304}
    olmoe = {"model_type": "olmoe", "intermediate_size": 1024, **sizes, **known}
    shape = ModelShape.from_config(olmoe)
    assert costs.model_bytes(shape, "bfloat16") == pytest.approx(2 * 6.92e9, rel=0.001)  # 7B-A1B
    scores = 16 * 4 * 128 * 16 * 128
    assert costs.forward_flops(shape, 16, 128) - scores == pytest.approx(2 * 1.08e9, rel=0.01)
    one = ModelShape.from_config({**olmoe, "num_experts": None})
    held = [costs.forward_bytes(of, "float32", 16, 128, eager=False) for of in (shape, one)]
    assert held[0] - held[1] == 4 * 16 * 128 * (4 * 8 * 1024 + 3 * 8 * 2048 - 3 * 1024)
