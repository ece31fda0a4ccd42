"""Which kernels a plan says that steps will use, and what they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.planning.inventory import Inventory
from tests.orchestrator.plans import ROOMY, plan_of, with_gpus

GPU = with_gpus(70 * 10**9)


def with_kernels(kernels: str) -> dict[int, str]:
    return {4: f"train: {{tokens: 1M, kernels: {kernels}}}"}


@pytest.mark.parametrize(
    "kernels,cpu,gpu",
    [
        ("auto", "numba", "torch"),
        ("torch", "torch", "torch"),
        ("numba", "numba", "torch"),
        ("triton", "numba", "triton"),
    ],
)
def test_each_kind_of_device_has_its_own(tmp_path: Path, kernels: str, cpu: str, gpu: str) -> None:
    assert plan_of(tmp_path, with_kernels(kernels)).kernels == cpu
    assert plan_of(tmp_path, with_kernels(kernels), GPU).kernels == gpu


def test_it_is_told_where_they_are_not_those_of_the_manifest(tmp_path: Path) -> None:
    note = "train.kernels: triton is for GPUs; steps on the CPU use numba"
    assert note in plan_of(tmp_path, with_kernels("triton")).notes
    assert note not in plan_of(tmp_path, with_kernels("triton"), GPU).notes
    assert note not in plan_of(tmp_path, with_kernels("auto")).notes


def test_memory_counts_what_they_hold(tmp_path: Path) -> None:
    parts = {part.what: part for part in plan_of(tmp_path, with_kernels("triton"), GPU).memory}
    kept, params = 64 * 8192, 3_542_016
    held = parts["slots and sums of a step"]
    assert held.bytes == 4 * (kept // 64) * 1536 + 100 * kept + 2 * params
    assert held.key == "train.kernels"
    plain = {part.what for part in plan_of(tmp_path, with_kernels("auto"), GPU).memory}
    assert "slots and sums of a step" not in plain


@pytest.mark.parametrize(
    "kernels,inventory,part",
    [
        ("auto", ROOMY, "compiled loops"),
        ("torch", ROOMY, None),
        ("triton", with_gpus(70 * 10**9, 70 * 10**9), "slots and sums of a step"),
    ],
)
def test_so_does_each_cell_that_producers_feed(
    tmp_path: Path, kernels: str, inventory: Inventory, part: str | None
) -> None:
    split = {8: "resources: {topology: split}"}
    plan = plan_of(tmp_path, with_kernels(kernels) | split, inventory)
    assert plan.producers
    for cell in plan.cells:
        found = {part.what for part in cell.memory if part.key == "train.kernels"}
        assert found == ({part} if part else set())
