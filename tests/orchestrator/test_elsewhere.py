"""Plans for hardware that is not here: what lies where, what stays idle, what would make it fit."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import cli
from orchestrator.commands.options import Size
from orchestrator.manifest import load_manifest
from orchestrator.planning.inventory import Inventory, gpus_elsewhere
from orchestrator.planning.placement import device_names
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preflight import shortages
from orchestrator.planning.remedies import remedies
from tests.orchestrator.manifests import write_manifest
from tests.orchestrator.plans import gpt2

ALL_LAYERS = {
    2: "model: {name: gpt2, forward_contexts: 16}",
    7: "  - {layers: all, source: resid_mid, target: mlp_out}",
}
GB = 10**9


def plan(tmp_path: Path, *options: str, lines: dict[int, str] = ALL_LAYERS) -> Result:
    path = write_manifest(tmp_path, lines)
    return CliRunner(env={"COLUMNS": "120"}).invoke(cli, ["plan", str(path), *options])


@pytest.mark.parametrize(
    ("first", "last", "node_gpus", "words"),
    [
        (0, 0, None, "cuda:0"),
        (2, 5, None, "cuda:2-5"),
        (0, 31, 8, "nodes 0-3"),
        (0, 7, 8, "node 0"),
        (0, 25, 8, "nodes 0-2, node 3 cuda:0-1"),
        (26, 31, 8, "node 3 cuda:2-7"),
        (3, 12, 8, "node 0 cuda:3-7, node 1 cuda:0-4"),
        (10, 12, 8, "node 1 cuda:2-4"),
        (13, 13, 8, "node 1 cuda:5"),
        (7, 16, 8, "node 0 cuda:7, node 1, node 2 cuda:0"),
        (1, 3, 1, "nodes 1-3"),
    ],
)
def test_devices_are_named_by_their_node(
    first: int, last: int, node_gpus: int | None, words: str
) -> None:
    devices = [f"cuda:{index}" for index in range(first, last + 1)]
    assert device_names(devices, node_gpus) == words


def test_cells_go_to_other_hardware_and_idle_gpus_are_named(tmp_path: Path) -> None:
    shown = plan(tmp_path, "--nodes", "2", "--gpus-per-node", "8", "--gpu-memory", "80GB").stdout
    assert "fused on node 0, node 1 cuda:0-3: 12 GPUs" in shown
    assert "trainer-11[L11] on node 1 cuda:3: 1 transcoder" in shown
    assert "note: idle: node 1 cuda:4-7 (every transcoder has one)" in shown
    assert "note: every node needs to see the run folder" in shown
    assert "; 80.0 GB available" in shown and "threads" not in shown


def worth(tmp_path: Path, count: int, memory: int) -> tuple[float, int]:
    """What a plan says of so many GPUs: times faster than one, and how many would do."""
    manifest = load_manifest(write_manifest(tmp_path, ALL_LAYERS))
    notes = "\n".join(make_plan(manifest, gpt2(), gpus_elsewhere(1, count, memory)).notes)
    faster = re.search(r"GPUs are at best ([\d.]+) x as fast as one", notes)
    do = re.search(r"(\d+) GPUs would be as fast", notes)
    return float(faster[1]) if faster else 1.0, int(do[1]) if do else count


def test_what_more_gpus_are_worth_and_how_many_would_do(tmp_path: Path) -> None:
    manifest = load_manifest(write_manifest(tmp_path, ALL_LAYERS))

    def pace(count: int) -> int:
        plan = make_plan(manifest, gpt2(), gpus_elsewhere(1, count, 80 * GB))
        return max(cell.flops_per_token for cell in plan.cells)

    for count in (1, 2, 3, 6, 12):
        faster, enough = worth(tmp_path, count, 80 * GB)
        assert faster == pytest.approx(pace(1) / pace(count), abs=0.05)
        assert pace(enough) <= 1.02 * pace(count)
        assert enough == 1 or pace(enough - 1) > 1.02 * pace(count)
    # Where memory is little, as many as hold it are needed, however fast fewer would be.
    little = 2 * GB
    assert worth(tmp_path, 12, little)[1] >= 6 > worth(tmp_path, 12, 80 * GB)[1]
    assert not fits(tmp_path, gpus_elsewhere(1, 5, little))


def test_one_option_is_enough_and_memory_may_be_unknown(tmp_path: Path) -> None:
    one = json.loads(plan(tmp_path, "--gpu-memory", "24 GiB", "--json").stdout)
    assert (one["device"], one["threads"], len(one["cells"])) == ("cuda:0", None, 1)
    three = plan(tmp_path, "--nodes", "3").stdout
    assert "fused on nodes 0-2" in three and "available" not in three


def test_threads_of_the_manifest_are_shown(tmp_path: Path) -> None:
    lines = {**ALL_LAYERS, 8: "resources: {threads: 6}"}
    assert "fused on cuda:0, 6 threads:" in plan(tmp_path, "--nodes", "1", lines=lines).stdout


@pytest.mark.parametrize("size", ["80", "80 XB", "GB", "-1GB", "80GBs"])
def test_a_size_is_not_guessed(size: str, tmp_path: Path) -> None:
    refused = plan(tmp_path, "--gpu-memory", size)
    assert refused.exit_code == 2
    assert f"'{size}' is no size such as 80GB or 24GiB" in refused.stderr


def test_sizes_are_read_as_people_write_them() -> None:
    read = {text: Size().convert(text, None, None) for text in ("80GB", "1.5 tb", "24GiB", "9M")}
    assert read == {"80GB": 80 * GB, "1.5 tb": 1500 * GB, "24GiB": 24 * 2**30, "9M": 9 * 10**6}


def test_gpus_for_a_manifest_that_wants_none_are_refused(tmp_path: Path) -> None:
    lines = {**ALL_LAYERS, 8: "resources: {device: cpu}"}
    refused = plan(tmp_path, "--nodes", "2", lines=lines)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == (
        f'{tmp_path}/m.yaml:8: resources.device: "cpu" takes none of these GPUs; add --set '
        "resources.device=auto\n"
    )


def ways(tmp_path: Path, inventory: Inventory, lines: dict[int, str] = ALL_LAYERS) -> list[str]:
    """The remedies for a plan that does not fit."""
    manifest = load_manifest(write_manifest(tmp_path, lines))
    planned = make_plan(manifest, gpt2(), inventory)
    assert shortages(planned, inventory, tmp_path)
    return remedies(manifest, gpt2(), inventory, planned)


def fits(tmp_path: Path, inventory: Inventory, lines: dict[int, str] = ALL_LAYERS) -> bool:
    manifest = load_manifest(write_manifest(tmp_path, lines))
    return not shortages(make_plan(manifest, gpt2(), inventory), inventory, tmp_path)


def told(pattern: str, ways: list[str]) -> str | None:
    """The number that a remedy names, if it is among them."""
    found = [match[1] for way in ways if (match := re.fullmatch(pattern, way))]
    return found[0] if found else None


RUNS = r"it would fit in (\d+) runs one after another, each with a part of the transcoders"


@pytest.mark.parametrize("gpus", [1, 2, 3, 5])
@pytest.mark.parametrize("memory", [1.75, 1.9, 2, 2.3, 3])
def test_more_gpus_and_larger_ones_that_are_named_do_fit_and_fewer_or_smaller_do_not(
    gpus: int, memory: float, tmp_path: Path
) -> None:
    size = int(memory * GB)
    if fits(tmp_path, gpus_elsewhere(1, gpus, size)):
        return
    listed = ways(tmp_path, gpus_elsewhere(1, gpus, size))
    count = int(told(r"it would fit on (\d+) such GPUs", listed) or 0)
    assert fits(tmp_path, gpus_elsewhere(1, count, size))
    assert not fits(tmp_path, gpus_elsewhere(1, count - 1, size))
    assert told(RUNS, listed) == str(-(-count // gpus))
    room = float(told(r"it would fit on GPUs with (\S+) GB of free memory", listed) or 0)
    assert fits(tmp_path, gpus_elsewhere(1, gpus, round(room * GB)))
    assert not fits(tmp_path, gpus_elsewhere(1, gpus, round((room - 0.3) * GB)))


def test_keys_that_keep_gpus_from_being_used_are_named(tmp_path: Path) -> None:
    lines = {**ALL_LAYERS, 8: "resources: {cells: 1}"}
    here = gpus_elsewhere(1, 6, 2 * GB)
    assert ways(tmp_path, here, lines)[0] == (
        "it would fit on 6 of these GPUs with resources.cells: auto"
    )
    assert fits(tmp_path, here)
    lines = {**ALL_LAYERS, 8: "resources: {device: cuda:1}"}
    assert ways(tmp_path, gpus_elsewhere(1, 2, 2 * GB), lines)[0] == (
        "it would fit on 6 such GPUs with resources.device: auto"
    )


def test_keys_that_are_named_do_fit(tmp_path: Path) -> None:
    memory = 3 * GB
    last = ways(tmp_path, gpus_elsewhere(1, 1, memory))[-1]
    assert last == "it would fit with train.block_batches: 1 (another result, so another run)"
    lines = {**ALL_LAYERS, 4: "train: {tokens: 1M, block_batches: 1}"}
    assert fits(tmp_path, gpus_elsewhere(1, 1, memory), lines)


@pytest.mark.parametrize(
    ("machine", "resources", "way"),
    [
        (Inventory(8, 15 * GB, 10**12), "topology: split, threads: 1", "prefetch_steps: 1"),
        (Inventory(8, 18 * GB, 10**12), "producers: 5, threads: 1", "producers: 1"),
        (Inventory(8, 14 * GB, 10**12), "producers: 5, threads: 1", "producers: 1, resources.p"),
        (Inventory(8, 20 * GB, 10**12, shared_bytes=GB), "topology: split", "topology: fused"),
        (gpus_elsewhere(1, 2, 5 * GB), "producers: 2", "topology: fused"),
    ],
)
def test_of_producers_fewer_less_ahead_or_none(
    machine: Inventory, resources: str, way: str, tmp_path: Path
) -> None:
    lines = {**ALL_LAYERS, 8: f"resources: {{{resources}}}"}
    (told,) = ways(tmp_path, machine, lines)
    assert f"resources.{way}" in told, told
    keys = dict(re.findall(r"resources\.(\w+): (\w+)", told))
    kept = "" if "topology" in keys else "topology: split, "
    changed = ", ".join(f"{key}: {value}" for key, value in keys.items())
    assert fits(tmp_path, machine, {**ALL_LAYERS, 8: f"resources: {{{kept}{changed}, threads: 1}}"})


def test_on_a_cpu_fewer_cells_or_several_runs(tmp_path: Path) -> None:
    cells = {**ALL_LAYERS, 8: "resources: {cells: 6, threads: 1}"}
    little = Inventory(8, 6 * GB, 10**12)
    assert "it would fit with resources.cells: 1" in ways(tmp_path, little, cells)
    assert fits(tmp_path, little)
    less = Inventory(8, 5 * GB, 10**12)
    both = "it would fit with resources.cells: 1, train.block_batches: 1 (another result, so "
    assert ways(tmp_path, less, cells) == [
        "it would fit in 2 runs with resources.cells: 1 one after another, each with a part of the "
        "transcoders",
        both + "another run)",
    ]
    half = {7: "  - {layers: 6-11, source: resid_mid, target: mlp_out}"}
    assert fits(tmp_path, less, half | {8: "resources: {cells: 1, threads: 1}"})
    assert not fits(tmp_path, less, half | {8: cells[8]})


def test_what_can_never_fit_has_no_remedy_in_parts(tmp_path: Path) -> None:
    listed = ways(tmp_path, gpus_elsewhere(1, 1, 10**9))
    assert not any("such GPUs" in line or "runs" in line for line in listed)


def test_a_full_disk_alone_asks_for_no_other_memory(tmp_path: Path) -> None:
    little = Inventory(8, 64 * GB, 10**6)
    assert ways(tmp_path, little) == []
    assert ways(tmp_path, little, {**ALL_LAYERS, 8: "resources: {topology: split}"}) == []


def test_little_memory_for_many_gpus_is_told_shortly_and_soon(tmp_path: Path) -> None:
    seeds = ", ".join(map(str, range(84)))
    pairs = f"  - {{layers: all, source: resid_mid, target: mlp_out, seed: [{seeds}]}}"
    lines = {**ALL_LAYERS, 7: pairs}
    manifest = load_manifest(write_manifest(tmp_path, lines))
    inventory = gpus_elsewhere(8, 8, 2 * GB)
    began = time.perf_counter()
    planned = make_plan(manifest, gpt2(), inventory)
    lacking = shortages(planned, inventory, tmp_path)
    listed = remedies(manifest, gpt2(), inventory, planned)
    assert time.perf_counter() - began < 4
    assert len(lacking) == 4 and re.fullmatch(r"\d+ more GPUs lack memory, too", lacking[-1])
    assert re.match(r"it would fit on \d+ such GPUs", listed[0])
