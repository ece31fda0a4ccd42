"""Contexts of one forward pass: by the kind of device, once, and then kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mtc_core.errors import ConfigError
from orchestrator.manifest import contexts_of, load_manifest
from orchestrator.planning.inventory import Gpu, Inventory, gpus_elsewhere
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.preflight import shortages
from orchestrator.planning.remedies import remedies
from orchestrator.prepare import OpenRun, open_run
from orchestrator.run_folder.folder import RunFolder
from tests.core.tiny_models import save_tiny_model
from tests.e2e import runs
from tests.orchestrator.manifests import write_manifest
from tests.orchestrator.plans import ROOMY, gpt2, plan_of, with_gpus

GB = 10**9
ON_A_GPU = Inventory(2, 64 * GB, 10**12, (Gpu("H200", 140 * GB, 140 * GB),))
ON_A_CPU = Inventory(2, 64 * GB, 10**12)


def forward_bytes(plan: Plan) -> int:
    (part,) = [part for part in plan.memory if part.key == "model.forward_contexts"]
    return part.bytes


@pytest.mark.parametrize(
    ("context_tokens", "on_gpu"), [(32, 288), (128, 72), (576, 16), (600, 16), (1024, 16)]
)
def test_a_gpu_is_given_9216_tokens_at_once_and_a_cpu_16_contexts(
    context_tokens: int, on_gpu: int, tmp_path: Path
) -> None:
    lines = {3: f"data: {{path: python-docs, context_tokens: {context_tokens}}}"}
    cpu, gpu = (plan_of(tmp_path, lines, there) for there in (ROOMY, with_gpus(80 * GB)))
    assert (cpu.forward.contexts, gpu.forward.contexts) == (16, on_gpu)
    assert forward_bytes(gpu) * 16 == on_gpu * forward_bytes(cpu)
    lines[8] = "resources: {device: cpu}"
    assert plan_of(tmp_path, lines, with_gpus(80 * GB)).forward.contexts == 16


def test_what_is_asked_for_is_taken_everywhere(tmp_path: Path) -> None:
    lines = {2: "model: {name: gpt2, forward_contexts: 5}"}
    for there in (ROOMY, with_gpus(80 * GB)):
        assert plan_of(tmp_path, lines, there).forward.contexts == 5


def test_where_gpus_are_small_the_contexts_of_a_cpu_are_a_way_to_fit(tmp_path: Path) -> None:
    small = gpus_elsewhere(1, 1, 2_100_000_000)
    manifest = load_manifest(write_manifest(tmp_path))
    planned = make_plan(manifest, gpt2(), small)
    assert shortages(planned, small, tmp_path)
    ways = remedies(manifest, gpt2(), small, planned)
    assert ways[-1] == (
        "it would fit with model.forward_contexts: 16 (another result, so another run)"
    )
    lines = {2: "model: {name: gpt2, forward_contexts: 16}"}
    assert not shortages(plan_of(tmp_path, lines, small), small, tmp_path)


def opened(tmp_path: Path, inventory: Inventory, *options: str) -> OpenRun:
    """A run as the driver opens it on that machine; recorded, and nothing trained."""
    if not (tmp_path / "model").exists():
        save_tiny_model(tmp_path / "model")
    path = runs.write_manifest(tmp_path, tmp_path / "model", tokens=256 * 8)
    manifest = load_manifest(path, ("resources.device=auto", *options))
    folder = RunFolder(tmp_path / "runs", manifest.name)
    return open_run(tmp_path / "runs", manifest, folder, lambda root, manifest: inventory)


def recorded(run: OpenRun) -> dict[str, Any]:
    return json.loads(run.folder.resolved.read_text())


def trained(run: OpenRun) -> None:
    """What a first checkpoint leaves."""
    (run.folder.transcoders / run.ids[0] / "checkpoints" / "step-000000001").mkdir(parents=True)


@pytest.mark.parametrize(("begun", "contexts"), [(ON_A_GPU, 288), (ON_A_CPU, 16)])
def test_a_run_keeps_what_it_began_with_wherever_it_goes_on(
    begun: Inventory, contexts: int, tmp_path: Path
) -> None:
    run = opened(tmp_path, begun)
    assert contexts_of(run.manifest) == run.plan.forward.contexts == contexts
    assert recorded(run)["model"]["forward_contexts"] == contexts
    trained(run)
    for there in (ON_A_CPU, ON_A_GPU):
        again = opened(tmp_path, there)
        assert contexts_of(again.manifest) == again.plan.forward.contexts == contexts
        assert again.notes == ()
        asked = opened(tmp_path, there, f"model.forward_contexts={contexts}")
        assert contexts_of(asked.manifest) == contexts
        told = f"model.forward_contexts: was {contexts}, now 7"
        with pytest.raises(ConfigError, match=re.escape(told)):
            opened(tmp_path, there, "model.forward_contexts=7")


def test_a_run_of_a_version_without_the_choice_goes_on_with_16(tmp_path: Path) -> None:
    run = opened(tmp_path, ON_A_CPU)
    assert recorded(run)["model"]["forward_contexts"] == 16, "as it was written there"
    trained(run)
    assert contexts_of(opened(tmp_path, ON_A_GPU).manifest) == 16


def test_a_record_that_does_not_say_it_means_16(tmp_path: Path) -> None:
    run = opened(tmp_path, ON_A_CPU)
    kept = recorded(run)
    del kept["model"]["forward_contexts"]
    assert contexts_of(run.folder.settings(kept)) == 16


def test_one_that_has_trained_nothing_begins_anew_for_what_is_there(tmp_path: Path) -> None:
    opened(tmp_path, ON_A_CPU)
    run = opened(tmp_path, ON_A_GPU, "seed=1")  # another run, so nothing of that one is kept
    assert contexts_of(run.manifest) == recorded(run)["model"]["forward_contexts"] == 288


def test_four_passes_make_a_block_of_four_steps(tmp_path: Path) -> None:
    """Though the first position of a context is no row, nor is one of a hundred others."""
    plan = plan_of(tmp_path, {4: "train: {tokens: 100M}"}, with_gpus(80 * GB))
    needed = -(-plan.schedule.block_rows // int(127 * 0.99))
    assert -(-needed // plan.forward.contexts) == 4
