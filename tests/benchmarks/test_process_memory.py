"""Memory of a real tree of processes: each counted, shared pages once, those that ended not."""

import os
import subprocess
import sys
import time

import pytest

from benchmarks import process_memory
from benchmarks.process_memory import PeakMemory, pss_bytes

MIB = 2**20
# One with 64 MiB of pages, which forks: its child reads them all, and adds 32 MiB of its own.
FAMILY = """
import mmap, os, sys, time
shared = mmap.mmap(-1, 64 * 2**20)
shared.write(b"x" * len(shared))
if os.fork() == 0:
    sum(shared[i] for i in range(0, len(shared), 4096))
    own = b"y" * (32 * 2**20)
print("there", flush=True)
sys.stdin.read()
"""
# One that takes 24 MiB more at each line of input.
GROWING = """
import sys
kept = []
for line in sys.stdin:
    kept.append(b"x" * (24 * 2**20))
    print("taken", flush=True)
"""
# One whose child ends at a line of input, and leaves a child of its own.
ORPHAN = """
import os, sys
if os.fork() == 0:
    if os.fork() == 0:
        own = b"y" * (48 * 2**20)
        print("there", flush=True)
        os.read(0, 1)
        os._exit(0)
    os.read(int(sys.argv[1]), 1)
    os._exit(0)
os.wait()
print("gone", flush=True)
os.read(0, 1)
"""


def more_samples(memory, count=2):
    """Wait for so many samples that began after this call, and the one before."""
    wanted, until = memory.samples + count + 1, time.monotonic() + 30
    while memory.samples < wanted and time.monotonic() < until:
        time.sleep(0.01)
    assert memory.samples >= wanted


@pytest.fixture
def family():
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert [process.stdout.readline() for _ in range(2)] == [b"there\n"] * 2
        yield process
        process.stdin.close()


def test_a_child_counts_and_what_both_share_counts_once(family):
    with PeakMemory(family.pid, every_s=0.05, at_least_every_s=0) as memory:
        more_samples(memory)
    assert len(memory.at_peak) == 2
    assert 96 * MIB <= memory.peak_bytes < 96 * MIB + 30 * MIB


def test_the_peak_stays_when_the_processes_are_gone(family):
    with PeakMemory(family.pid, every_s=0.05, at_least_every_s=0) as memory:
        more_samples(memory)
        peak = memory.peak_bytes
        family.stdin.close()
        family.wait()
        more_samples(memory)
    assert memory.peak_bytes >= peak > 96 * MIB and pss_bytes(family.pid) == 0


def test_a_child_whose_parent_has_ended_still_counts():
    end, leave = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(end)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[end],
    ) as process:
        assert process.stdout.readline() == b"there\n"
        with PeakMemory(process.pid, every_s=0.05, at_least_every_s=0) as memory:
            more_samples(memory)
            os.write(leave, b"x")
            assert process.stdout.readline() == b"gone\n"
            more_samples(memory)
            memory.peak_bytes = 0
            more_samples(memory)
        process.stdin.close()
    os.close(end), os.close(leave)
    assert memory.peak_bytes > 48 * MIB


def test_growth_is_seen_though_memory_is_seldom_read(monkeypatch):
    reads = []
    monkeypatch.setattr(
        process_memory, "pss_bytes", lambda pid: reads.append(pid) or pss_bytes(pid)
    )
    command = [sys.executable, "-u", "-c", GROWING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with PeakMemory(process.pid, every_s=0.02, at_least_every_s=1000) as memory:
            for taken in (1, 2, 3):
                process.stdin.write(b"\n")
                process.stdin.flush()
                assert process.stdout.readline() == b"taken\n"
                more_samples(memory)
                assert memory.peak_bytes > taken * 24 * MIB
            steady = len(reads)
            more_samples(memory, 10)
        process.stdin.close()
    assert len(reads) == steady, "nothing has grown since"
