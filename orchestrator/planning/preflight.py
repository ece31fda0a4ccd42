"""Does it fit? Asked before anything is loaded, with the key to change where it does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mtc_core.errors import ConfigError
from orchestrator.planning.inventory import Inventory
from orchestrator.planning.parts import CELLS_KEY, PREFETCH_KEY, Part
from orchestrator.planning.placement import device_names
from orchestrator.planning.plan import Plan

SHOWN = 3  # of many GPUs that all lack the same


def preflight(
    plan: Plan, inventory: Inventory, root: Path, remedies: Callable[[], Sequence[str]] = tuple
) -> None:
    """Raise ConfigError if memory, or the disk under `root`, is too small for the plan. remedies
    are asked for only then."""
    if lacking := shortages(plan, inventory, root):
        raise ConfigError("\n".join([*lacking, *remedies()]))


def shortages(plan: Plan, inventory: Inventory, root: Path) -> list[str]:
    """One sentence for each memory that is too small, and one for disk."""
    folder = root / plan.name
    lacking: list[str] = []
    for device, parts in plan.memories.items():
        where = device_names((device,), inventory.node_gpus)
        lacking += _lack("memory", parts, inventory.memory_of(device), where)
    if len(lacking) > SHOWN:
        lacking[SHOWN:] = [f"{len(lacking) - SHOWN} more GPUs lack memory, too"]
    if plan.exchange and inventory.shared_bytes is not None:
        store = [Part("published rows", plan.exchange.store_bytes, PREFETCH_KEY)]
        where = "/dev/shm (of a container: see --shm-size)"
        lacking += _lack("shared memory", store, inventory.shared_bytes, where)
    if inventory.disk_bytes is not None:
        # What an earlier invocation of this run wrote is needed no second time.
        disk_bytes = inventory.disk_bytes + bytes_under(folder)
        lacking += _lack("disk", plan.disk, disk_bytes, str(folder))
    return lacking


def space_missing(plan: Plan, folder: Path) -> str:
    """What to do about a disk that has become full, with what the rest of the run needs of it."""
    needed = plan.disk_bytes - bytes_under(folder)
    free = shutil.disk_usage(folder).free
    if needed <= free:  # the user's share is full, or the plan was wrong
        return f"the disk of {folder} is full, free space there"
    return (
        f"the disk of {folder} is full ({human_bytes(free)} left, and the rest of this run needs "
        f"{human_bytes(needed)}): free {human_bytes(needed - free)} there"
    )


def bytes_under(folder: Path) -> int:
    """Size of all files in a folder; 0 where there is none. Files may vanish meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def human_bytes(count: float) -> str:
    """`3.1 GB`, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"


def _lower(first: str, *others: str) -> str:
    if first == "model.dtype":
        return ", or lower ".join(["set model.dtype: bfloat16", *others])
    return f"lower {' or '.join([first, *others])}"


def _lack(kind: str, parts: Sequence[Part], available: int | None, where: str) -> Iterator[str]:
    needed = sum(part.bytes for part in parts)
    if available is None or needed <= available:
        return
    largest = max((part for part in parts if part.key), key=lambda part: part.bytes)
    lowered = "" if largest.bytes == max(part.bytes for part in parts) else " to lower"
    # Fewer cells need less, and change no result: said wherever there are several.
    keys = dict.fromkeys([largest.key, *(part.key for part in parts if part.key == CELLS_KEY)])
    yield (
        f"not enough {kind} on {where}: needs {human_bytes(needed)}, "
        f"{human_bytes(available)} available; the largest part{lowered} is {largest.what} "
        f"({human_bytes(largest.bytes)}): {_lower(*keys)}"
    )
