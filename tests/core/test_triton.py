"""Triton kernels where there is no GPU: they compile for one, and Triton's interpreter agrees with
their slow twins. What they do on a GPU is in tests/gpu."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtc_core.errors import ConfigError
from mtc_core.kernels.choose import resolve_kernels
from mtc_core.kernels.step_kernels import step_kernels

ROOT = Path(__file__).parents[2]
VECTOR, INTS, LONGS = "*fp32", "*i32", "*i64"
ADAM = ["fp32"] * 6


def run(*command, **environment):
    """A process of its own: Triton is told before it is loaded whether to compile."""
    quiet = {"TRITON_DEFAULT_FP_FUSION": "1"}  # Triton 3.9 warns of a default to come
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **quiet, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.interpreted
def test_interpreted_kernels_agree_with_their_twins():
    # A GPU's torch brings its own Triton; 3.6's interpreter has no loops to a bound from a tensor.
    pytest.importorskip("triton", "3.7", reason="Triton is for Linux, and its 3.6 too old for this")
    found = run("-m", "pytest", "tests/interpreted", TRITON_INTERPRET="1")
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr
    assert "[100%]" in found.stdout


def kernels():
    """(kernel, types of its arguments, constants, warps): as GPT-2 small and Gemma-2-2B have them,
    in float32 and bfloat16."""
    from mtc_core.kernels import triton_loops as loops
    from mtc_core.kernels import triton_search as search

    for biased in (True, False):
        block = {"BLOCK": 4096, "BIASED": biased}
        yield search.count, [VECTOR, VECTOR, VECTOR, INTS, INTS, INTS, "i32"], block, 8
        written = [VECTOR, VECTOR, VECTOR, INTS, INTS, INTS, LONGS, VECTOR, "i32", "i32"]
        yield search.write, written, block, 8
        counted = [VECTOR, VECTOR, INTS, INTS, "i32"]
        yield search.histogram, counted, {"SHIFT": 24, **block}, 8
        for k in (0, 256):
            kept = [VECTOR, VECTOR, INTS, "i32", "fp32"]
            yield search.keep_of_rows, kept, {"K": k, **block}, 8
    yield search.pick, [INTS, INTS], {}, 4
    for half in ("*fp32", "*bf16"):
        for width, tile, warps in ((1024, 4, 4), (4096, 2, 8)):
            passed = [LONGS, LONGS, VECTOR, half, *[VECTOR] * 3, half, VECTOR, VECTOR, "i32"]
            yield loops.pass_rows, passed, {"M": 4, "TILE": tile, "BLOCK": width}, warps
            wide = {"BLOCK_I": width, "BLOCK_O": width}
            summed = [LONGS] * 4 + [VECTOR, LONGS, half, half, half, *[VECTOR] * 3, *["i32"] * 3]
            yield loops.sum_segment, summed, {"TILE": tile, **wide}, warps
            for aux in (True, False):
                updated = [LONGS, *[VECTOR] * 3, LONGS, *[VECTOR] * 12, half, half, INTS, *ADAM]
                constants = {"AUX": aux, "HALF": half == "*bf16", **wide}
                yield loops.update_latent, [*updated, "i32", "i32"], constants, warps
    yield loops.update_vector, [*[VECTOR] * 4, INTS, *ADAM, "i32"], {"BLOCK": 1024}, 4


def compile_all():
    """Each for a GPU that is not here; registers must not have been spilled to memory."""
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for kernel, types, constants, warps in kernels():
        names = kernel.arg_names
        assert len(names) == len(types) + len(constants), kernel.__name__
        signature = dict(zip(names, types + ["constexpr"] * len(constants), strict=True))
        assert set(constants) == set(names[len(types) :]), kernel.__name__
        made = compiled(
            ASTSource(fn=kernel, signature=signature, constexprs=constants),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": warps},
        )
        assert ".local" not in made.asm["ptx"], kernel.__name__
        assert made.metadata.shared < 48 * 1024
        assert len(made.asm["cubin"]) > 1000


def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path):
    pytest.importorskip("triton", reason="Triton is for Linux")
    code = "from tests.core.test_triton import compile_all; compile_all()"
    found = run("-c", code, TRITON_CACHE_DIR=str(tmp_path), PYTHONPATH=str(ROOT))
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_takes_torchs_kernels_unless_asked_for_others(device):
    assert resolve_kernels(None, device) == resolve_kernels("torch", device) == "torch"
    assert resolve_kernels("numba", device) == "torch"  # pinned when the run began on a CPU
    assert resolve_kernels("triton", device) == "triton"


def test_a_cpu_takes_its_own(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert resolve_kernels("triton", "cpu") == resolve_kernels(None, "cpu") == "numba"


def test_where_triton_is_missing_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "mtc_core.kernels.triton_kernels", None)
    with pytest.raises(ConfigError, match=r"triton cannot be loaded: .*train\.kernels: torch"):
        step_kernels("triton", torch.device("cuda"), torch.float32)
