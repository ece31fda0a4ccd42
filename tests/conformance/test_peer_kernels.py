"""sparsify's Triton kernels take the step that ours take: by Triton's interpreter, no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).parents[2]


def test_sparsify_s_kernels_agree_with_ours(peers, tmp_path):
    pytest.importorskip("triton", "3.7", reason="Triton is for Linux, and its 3.6 too old for this")
    (file,) = peers.parents[1].glob("lib/python*/site-packages/sparsify/xformers.py")
    words = ["--shape", "tiny", "--device", "cpu", "--kernels", "triton", "torch", "--rounds", "1"]
    words += ["--calls", "1", "--beside", str(file), "--json", str(tmp_path / "j")]
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.peer_kernels", *words],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "TRITON_DEFAULT_FP_FUSION": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout + found.stderr[-4000:]
    kernels = json.loads((tmp_path / "j").read_text())["kernels"]
    assert {"sparsify's embedding bag", "ours, triton, 1 prefix"} < kernels.keys()
    for name, one in kernels.items():
        assert one["apart"] < 1e-6, name
