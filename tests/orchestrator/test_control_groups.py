"""Limits of containers, services and jobs, in both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.planning import control_groups, inventory

GB = 10**9


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes files below the mount, and the line that tells which group is ours."""
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path / "mount")
    monkeypatch.setattr(control_groups, "_OWN", tmp_path / "own")

    def write(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, content in files.items():
            (path := tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")

    return write


def memory(folder: str, limit: str, used: int, cache: int = 0) -> dict[str, str]:
    stat = f"anon {used - cache}\ninactive_file {cache}\nactive_file 0"
    parts = {"max": limit, "current": str(used), "stat": stat}
    return {f"{folder}memory.{name}": text for name, text in parts.items()}


def test_a_container_has_what_it_has_not_used(groups) -> None:
    groups("0::/\n", memory("", str(8 * GB), 3 * GB))
    assert control_groups.memory_left() == 5 * GB
    assert inventory.free_memory() <= 5 * GB


def test_files_in_the_cache_are_no_memory_that_is_taken(groups) -> None:
    """Scar: the cache fills with whatever is read, up to the limit; then nothing seemed free."""
    groups("0::/\n", memory("", str(8 * GB), 8 * GB - 1, cache=6 * GB))
    assert control_groups.memory_left() == 6 * GB + 1


def test_a_job_has_the_least_that_any_group_above_it_leaves(groups) -> None:
    job = "slurm/job_7/"
    above = memory("slurm/", str(64 * GB), 60 * GB) | memory(job, str(16 * GB), 2 * GB)
    times = {f"{job}cpu.max": "150000 100000", f"{job}step_0/cpu.max": "max 100000"}
    groups(f"0::/{job}step_0\n", above | memory(f"{job}step_0/", "max", GB) | times)
    assert control_groups.memory_left() == 4 * GB
    assert control_groups.cores_left() == 1.5
    assert inventory.take_inventory(Path.cwd()).cores in (1, 2)


def test_the_first_version_has_a_hierarchy_for_each(groups) -> None:
    """In a container the path is the host's, and not there: the mount's own limit holds."""
    own = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:devices:/\n0::/docker/abc\n"
    groups(own, {
        "memory/memory.limit_in_bytes": str(4 * GB),
        "memory/memory.usage_in_bytes": str(3 * GB),
        "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB}",
        "cpu,cpuacct/cpu.cfs_quota_us": "50000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
    })  # fmt: skip
    assert control_groups.memory_left() == 2 * GB
    assert control_groups.cores_left() == 0.5
    assert inventory.take_inventory(Path.cwd()).cores == 1


@pytest.mark.parametrize("limit", ["max", ""])
def test_without_a_limit_the_machine_counts(groups, limit: str) -> None:
    groups("0::/\n", memory("", limit, GB) | {"cpu.max": "max 100000"})
    assert control_groups.memory_left() is None and control_groups.cores_left() is None
    assert inventory.free_memory() > 0


def test_where_there_are_no_groups_nothing_is_limited(groups) -> None:
    assert control_groups.memory_left() is None and control_groups.cores_left() is None


def test_those_of_this_machine_can_be_read() -> None:
    left = control_groups.memory_left()
    assert left is None or left > 2**20
