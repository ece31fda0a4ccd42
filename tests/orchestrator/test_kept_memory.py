"""Tensors that come and go take the pages of those before them."""

import subprocess
import sys

import pytest

STEPS = """
import platform, resource, sys
import torch
from orchestrator.cells.kept_memory import keep_freed_memory

if platform.libc_ver()[0] != "glibc":
    sys.exit("not glibc")
keep_freed_memory()

def step():
    kept = [torch.ones(10 * 2**20 // 4) for _ in range(8)]  # 10 MiB each

for _ in range(10):  # until the heap has its shape
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


def faults_per_step(environment):
    command = [sys.executable, "-c", STEPS]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "not glibc" in ended.stderr:
        pytest.skip("only glibc is told")
    assert ended.returncode == 0, ended.stderr
    return float(ended.stdout)


def test_a_step_faults_no_page_in_twice():
    """15,000 of its 20,480 pages without our asking."""
    assert faults_per_step({}) < 100


def test_a_user_who_tunes_malloc_is_left_alone():
    """With a threshold of the user's, every one of these tensors is mapped anew."""
    assert faults_per_step({"MALLOC_MMAP_THRESHOLD_": "1000000"}) > 20_000
