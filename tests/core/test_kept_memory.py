"""In a process in which a cell trains, tensors that come and go take the pages of those before."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.runs import write_manifest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
ROOT = Path(__file__).parents[2]
STEPS = """
import resource, sys
from pathlib import Path
import torch
from tests.e2e.runs import run_here

manifest = Path(sys.argv[1])
code, printed = run_here(manifest, manifest.parent)
assert code == 0, printed

def step():
    kept = [torch.ones(10 * 2**20 // 4) for _ in range(8)]  # 10 MiB each

for _ in range(10):  # until the heap has its shape
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


def faults_per_step(model, folder, **environment):
    command = [sys.executable, "-c", STEPS, write_manifest(folder, model, tokens=256 * 4)]
    env = {"HF_HUB_OFFLINE": "1", **environment}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return float(ended.stdout)


def test_a_step_faults_no_page_in_twice(model, tmp_path):
    """15,000 of its 20,480 pages without our asking."""
    assert faults_per_step(model, tmp_path) < 100


def test_a_user_who_tunes_malloc_is_left_alone(model, tmp_path):
    """With a threshold of the user's, every one of these tensors is mapped anew."""
    assert faults_per_step(model, tmp_path, MALLOC_MMAP_THRESHOLD_="1000000") > 20_000


FREED = """
import threading
import psutil, torch
from mtc_core.kept_memory import hand_freed_memory_back, keep_freed_memory

keep_freed_memory()
torch.ones(1)

last = []

def work():
    kept = [torch.ones(2**20 // 4) for _ in range(50)]  # 1 MiB each
    last.append(kept[-1])  # it lies above the others, which so stay with the thread

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
before = psutil.Process().memory_info().rss
hand_freed_memory_back()
print((before - psutil.Process().memory_info().rss) / 2**20)
"""


def test_memory_that_threads_have_freed_is_handed_back():
    ended = subprocess.run([sys.executable, "-c", FREED], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) > 50
