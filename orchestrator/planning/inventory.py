"""What this machine has to offer: cores, memory, disk and, where asked for, GPUs.

Limits of a container count: a plan that fits the host may not fit the cgroup.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from pathlib import Path

from mtc_core.cpu import UNKNOWN, Cpu, this_cpu
from mtc_core.errors import ConfigError
from orchestrator.planning import control_groups
from orchestrator.planning.costs import DRIVER_BYTES
from orchestrator.run_folder.disk_errors import disk_errors

_SHARED = Path("/dev/shm")
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA, the same under WSL, AMD
_LOOK = """
import json, sys, torch
first, end = map(int, sys.argv[1:])
found = []
for index in range(torch.cuda.device_count()):
    properties = torch.cuda.get_device_properties(index)
    free = torch.cuda.mem_get_info(index)[0] if first <= index < end else None
    found.append([properties.name, properties.total_memory, free])
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device. free_bytes is None where nobody has looked: looking takes memory there."""

    name: str
    memory_bytes: int
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """memory_bytes and disk_bytes are what is free now; None, as for cores: nobody knows. gpus
    None: not looked for. driver_bytes: what runs beside the cells and takes its part of the memory.
    node_gpus: GPUs of each of several equal nodes, where that is known. node_cpus: of each node of
    a cluster. shared_bytes: free shared memory, in which a Ray of our own keeps what is published.
    cpu: of this machine, for which those of a cluster are taken.
    """

    cores: int | None
    memory_bytes: int | None
    disk_bytes: int | None
    gpus: tuple[Gpu, ...] | None = None
    driver_bytes: int = DRIVER_BYTES
    node_gpus: int | None = None
    node_cpus: tuple[int, ...] = ()
    shared_bytes: int | None = None
    cpu: Cpu = UNKNOWN

    def free_bytes(self, device: str) -> int | None:
        """Of a GPU, `cuda:N`; None where nobody has looked, and for the CPU, whose memory is
        nobody's own."""
        if device == "cpu" or self.gpus is None:
            return None
        return self.gpus[int(device.partition(":")[2])].free_bytes

    def memory_of(self, device: str) -> int | None:
        """Free memory of `cpu` or `cuda:N`; None if nobody has looked there."""
        return self.memory_bytes if device == "cpu" else self.free_bytes(device)


def take_inventory(root: Path, device: str = "cpu") -> Inventory:
    """Look at this machine; `root` says which disk. For any resources.device but `cpu` GPUs are
    looked for, which loads torch, and for the free memory of those that may be taken. Raises
    ConfigError for a root that cannot be looked at."""
    with disk_errors(root, "read"):
        disk_bytes = shutil.disk_usage(_existing(root)).free
    return Inventory(
        cores=_cores(),
        memory_bytes=free_memory(),
        disk_bytes=disk_bytes,
        gpus=None if device == "cpu" else _gpus(_usable(device)),
        shared_bytes=shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else None,
        cpu=this_cpu(),
    )


def least_free(gpus: Iterable[Gpu]) -> int | None:
    """Free bytes of the fullest of these GPUs that somebody has looked at."""
    return min((gpu.free_bytes for gpu in gpus if gpu.free_bytes is not None), default=None)


def gpus_elsewhere(nodes: int, node_gpus: int, gpu_bytes: int | None) -> Inventory:
    """Hardware that is not here: equal nodes with equal GPUs, of which nothing else is known."""
    gpu = Gpu("GPU", gpu_bytes or 0, gpu_bytes)
    gpus = (gpu,) * (nodes * node_gpus)
    return Inventory(None, None, None, gpus, node_gpus=node_gpus if nodes > 1 else None)


def _cores() -> int:
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cores = len(allowed) if allowed else os.cpu_count() or 1
    allowed_time = control_groups.cores_left()
    return max(1, cores if allowed_time is None else min(cores, ceil(allowed_time)))


def free_memory() -> int:
    """Bytes of memory that nobody has, of this machine or of the container that we are in."""
    import psutil

    free: int = psutil.virtual_memory().available
    left = control_groups.memory_left()
    return free if left is None else min(free, left)


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _usable(device: str) -> range:
    """GPUs that cells may take, as far as they are there."""
    _, named, index = device.partition(":")
    return range(int(index), int(index) + 1) if named else range(sys.maxsize)


def gpus_here() -> bool:
    """Whether looking for GPUs is worth its seconds."""
    return any(Path(device).exists() for device in _GPU_DRIVERS)


def _gpus(usable: range) -> tuple[Gpu, ...]:
    if find_spec("torch") is None or not gpus_here():
        return ()
    # In a process of its own: whoever looks keeps some hundred MB of each GPU until its end.
    look = [sys.executable, "-c", _LOOK, str(usable.start), str(usable.stop)]
    looked = subprocess.run(look, capture_output=True, text=True)
    if looked.returncode:
        lines = looked.stderr.strip().splitlines()
        raise ConfigError(
            f"the GPUs cannot be looked at: {lines[-1] if lines else looked.returncode}; see what "
            "nvidia-smi says, or train with resources.device: cpu"
        )
    return tuple(Gpu(*found) for found in json.loads(looked.stdout))
