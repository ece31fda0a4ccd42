"""What this machine has to offer: cores, memory, disk and, where asked for, GPUs.

Limits of a container count: a plan that fits the host may not fit the cgroup.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device."""

    name: str
    memory_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """memory_bytes and disk_bytes are what is free now. gpus None: not looked for."""

    cores: int
    memory_bytes: int
    disk_bytes: int
    gpus: tuple[Gpu, ...] | None = None


def take_inventory(root: Path, with_gpus: bool = False) -> Inventory:
    """Look at this machine; `root` says which disk. Looking for GPUs loads torch."""
    return Inventory(
        cores=_cores(),
        memory_bytes=_free_memory(),
        disk_bytes=shutil.disk_usage(_existing(root)).free,
        gpus=_gpus() if with_gpus else None,
    )


def _cores() -> int:
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cores = len(allowed) if allowed else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        cores = min(cores, ceil(int(quota) / int(period)))
    return max(1, cores)


def _free_memory() -> int:
    import psutil

    free = psutil.virtual_memory().available
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit.isdecimal() and used.isdecimal():
        free = min(free, max(0, int(limit) - int(used)))
    return free


def _cgroup(name: str) -> str:
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:
        return ""


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _gpus() -> tuple[Gpu, ...]:
    if find_spec("torch") is None:
        return ()
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(torch.cuda.get_device_name(index), total, free))
    return tuple(found)
