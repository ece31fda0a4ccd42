"""Which kernels a plan says that steps will use, and what they need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mtc_core.cpu import Cpu
from orchestrator.commands.plan_view import show_plan
from orchestrator.planning.inventory import Inventory
from tests.orchestrator.plans import ROOMY, plan_of, with_gpus

GPU = with_gpus(70 * 10**9)
ZEN4 = Cpu("AMD EPYC 9B14", "AuthenticAMD", 25, frozenset({"avx2", "avx512f", "avx512_bf16"}))
ZEN3 = Cpu("AMD EPYC 7R13", "AuthenticAMD", 25, frozenset({"avx2"}))
XEON = Cpu("Intel(R) Xeon(R)", "GenuineIntel", 6, frozenset({"avx2", "avx512f", "avx512_bf16"}))
FEW = {5: "defaults: {group_sizes: [768, 1536], k: 32}"}  # kept of the latents
ONEDNN, SIEVE = "float32 by oneDNN", "encoders by a sieve in bfloat16"


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


@pytest.mark.parametrize(
    "kernels,cpu,products",
    [
        ("auto", ZEN4, (ONEDNN, SIEVE)),
        ("numba", ZEN3, (ONEDNN,)),
        ("triton", XEON, (SIEVE,)),
        ("torch", ZEN4, ()),
        ("auto", Cpu(), ()),
    ],
)
def test_products_that_are_not_left_to_torch_are_told(
    tmp_path: Path, kernels: str, cpu: Cpu, products: tuple[str, ...], capsys
) -> None:
    inventory = replace(ROOMY, cpu=cpu)
    plan = plan_of(tmp_path, with_kernels(kernels) | FEW, inventory)
    assert plan.products == products
    show_plan(Console(width=120), plan, inventory, ())
    line = next(line for line in capsys.readouterr().out.splitlines() if "kernels:" in line)
    told = f"; products: {', '.join(products)}" if products else ""
    assert line == f"kernels: {plan.kernels}{told}"
    assert plan_of(tmp_path, with_kernels(kernels) | FEW, replace(GPU, cpu=cpu)).products == ()


def test_a_sieve_is_for_selections_that_keep_few(tmp_path: Path) -> None:
    def products(lines: dict[int, str]) -> tuple[str, ...]:
        return plan_of(tmp_path, lines, replace(ROOMY, cpu=XEON)).products

    assert products(FEW) == (SIEVE,)
    assert products(FEW | {4: "train: {tokens: 1M, extreme: bound}"}) == ()
    assert products({}) == ()  # k 64
    one = {8: "  - {layers: 2, source: resid_mid, target: mlp_out, k: 64}"}
    assert products(FEW | one) == (f"2 of 3 {SIEVE}",)


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
