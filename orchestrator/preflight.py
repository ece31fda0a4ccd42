"""Does it fit? Asked before anything is loaded, with the key to change where it does not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mtc_core.errors import ConfigError
from orchestrator.inventory import Inventory
from orchestrator.plan import Part, Plan


def preflight(plan: Plan, inventory: Inventory, root: Path) -> None:
    """Raise ConfigError if memory, or the disk under `root`, is too small for the plan."""
    if lacking := shortages(plan, inventory, root):
        raise ConfigError("\n".join(lacking))


def shortages(plan: Plan, inventory: Inventory, root: Path) -> list[str]:
    """One sentence for memory and one for disk, where there is too little."""
    folder = root / plan.name
    there = {
        "memory": (memory_there(plan, inventory), plan.memory, plan.memory_bytes, plan.device),
        # What an earlier invocation of this run wrote is needed no second time.
        "disk": (
            inventory.disk_bytes + bytes_under(folder),
            plan.disk,
            plan.disk_bytes,
            str(folder),
        ),
    }
    return [
        _shortage(kind, needed, available, parts, where)
        for kind, (available, parts, needed, where) in there.items()
        if available is not None and needed > available
    ]


def memory_there(plan: Plan, inventory: Inventory) -> int | None:
    """Free memory of the plan's device; None if nobody has looked at that GPU."""
    if plan.device == "cpu":
        return inventory.memory_bytes
    if inventory.gpus is None:
        return None
    return inventory.gpus[int(plan.device.partition(":")[2])].free_bytes


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


def _shortage(kind: str, needed: int, available: int, parts: Sequence[Part], where: str) -> str:
    largest = max((part for part in parts if part.key), key=lambda part: part.bytes)
    return (
        f"not enough {kind} on {where}: needs {human_bytes(needed)}, "
        f"{human_bytes(available)} available; the largest part is {largest.what} "
        f"({human_bytes(largest.bytes)}): lower {largest.key}"
    )
