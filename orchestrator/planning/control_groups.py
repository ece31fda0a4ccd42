"""What the control groups of this process leave it: those of a container, a service, a Slurm job.

A limit holds for all groups below it, so those above ours count, too. In a container the path of
ours may be the host's, which is not there; the mount's root is the container's then. cgroups(7).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
# Limit, what is used, and what of that the kernel gives up first: files that were read or written.
_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
)


def memory_left() -> int | None:
    """Bytes; None without a limit."""
    left = []
    for group in _groups("memory"):
        for limit, used, cache in _MEMORY:
            most, taken = _number(group / limit), _number(group / used)
            if most is not None and taken is not None:
                left.append(max(0, most - taken + _field(group / "memory.stat", cache)))
    return min(left, default=None)


def cores_left() -> float | None:
    """None without a limit."""
    left = []
    for group in _groups("cpu"):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        pairs = [(quota, period)]
        pairs.append((_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")))
        left += [int(quota) / int(period) for quota, period in pairs
                 if quota.isdecimal() and period.isdecimal() and int(period)]  # fmt: skip
    return min(left, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Our group of each hierarchy that may limit this, and all above it."""
    for line in _text(_OWN).splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [_ROOT / controllers, _ROOT / controller] if controllers else [_ROOT]
        own = Path(path.lstrip("/"))
        for mount in dict.fromkeys(mounts):
            yield from (mount / part for part in (own, *own.parents))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _field(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
