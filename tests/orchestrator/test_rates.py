"""Rates of CPUs by what a run computes with, and in which dtypes."""

import pytest

from mtc_core.cpu import UNKNOWN, Cpu
from orchestrator.planning.rates import core_rates

AVX512 = frozenset({"avx2", "avx512f", "avx512_bf16"})
ZEN5 = Cpu("AMD EPYC 9755", "AuthenticAMD", 26, AVX512)
ZEN4 = Cpu("AMD EPYC 9654", "AuthenticAMD", 25, AVX512)
XEON = Cpu("Intel(R) Xeon(R) Processor", "GenuineIntel", 6, AVX512)
FLOAT, HALF = "float32", "bfloat16"


@pytest.mark.parametrize("cpu", [ZEN5, ZEN4])
def test_bfloat16_speeds_up_a_forward(cpu):
    ours, known = core_rates(cpu, FLOAT, FLOAT, False)
    half, half_known = core_rates(cpu, HALF, HALF, False)
    assert known and half_known
    assert half.forward_flops > 1.5 * ours.forward_flops
    assert half.sieve_flops == ours.sieve_flops, "a sieve multiplies in bfloat16 either way"
    assert half.dense_flops == ours.dense_flops, "of float32, as the ridge's totals"


@pytest.mark.parametrize("by_torch", [False, True])
def test_bfloat16_speeds_up_products_that_no_sieve_does(by_torch):
    plain, half = (core_rates(ZEN5, FLOAT, dtype, by_torch)[0] for dtype in (FLOAT, HALF))
    assert plain.encoder_flops is None and half.encoder_flops > 1.5 * plain.dense_flops
    assert half.with_threads(2).encoder_flops > 1.5 * half.encoder_flops


@pytest.mark.parametrize("cpu", [ZEN5, ZEN4])
def test_what_is_left_to_torch_has_neither_sieve_nor_the_faster_library(cpu):
    ours, _ = core_rates(cpu, FLOAT, FLOAT, False)
    plain, known = core_rates(cpu, FLOAT, FLOAT, True)
    assert known == (cpu is ZEN5), "of a Zen 4 it was not measured"
    assert plain.sieve_flops is None
    assert plain.forward_flops < ours.forward_flops and plain.sparse_flops < ours.sparse_flops


def test_torch_of_an_intel_has_the_same_products_and_slower_loops():
    ours, plain = (core_rates(XEON, FLOAT, FLOAT, plain)[0] for plain in (False, True))
    assert plain.forward_flops == ours.forward_flops
    assert plain.sparse_flops < ours.sparse_flops and plain.bytes < ours.bytes


@pytest.mark.parametrize(
    ("cpu", "model_dtype", "dtype", "known"),
    [
        (XEON, FLOAT, FLOAT, True),
        (XEON, HALF, FLOAT, False),
        (XEON, FLOAT, HALF, False),
        (ZEN5, "float16", FLOAT, False),
        (ZEN5, HALF, HALF, True),
        (UNKNOWN, FLOAT, FLOAT, False),
    ],
)
def test_what_nobody_measured_is_not_known(cpu, model_dtype, dtype, known):
    assert core_rates(cpu, model_dtype, dtype, False)[1] == known
