"""`mtc-orchestrate` where something is otherwise than it is: what cannot be waited for, or had.

    python -m tests.cluster.altered "{'placement_s': 3.0, 'gone_s': 5.0}" run …

placement_s, gone_s: limits of time. free_bytes: memory and disk that the plan sees. ray_folder:
where a Ray of our own keeps its files.
"""

from __future__ import annotations

import ast
import functools
import sys
import tempfile
from types import SimpleNamespace

from orchestrator.cli import cli
from orchestrator.planning import inventory


def main(alterations: str) -> None:
    for name, value in ast.literal_eval(alterations).items():
        ALTER[name](value)
    cli()


def placement_s(limit: float) -> None:
    from orchestrator.ray_backend import backend

    backend.RayBackend = functools.partial(backend.RayBackend, placement_s=limit)


def gone_s(limit: float) -> None:
    from orchestrator.ray_backend import head

    head.GONE_S, head.EVERY_S = limit, 0.5


def free_bytes(count: int) -> None:
    inventory.free_memory = lambda: count
    inventory.shutil = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=count))


def ray_folder(folder: str) -> None:
    from orchestrator.ray_backend import janitor

    mkdtemp = functools.partial(tempfile.mkdtemp, prefix="mtc-ray-", dir=folder)
    janitor.tempfile = SimpleNamespace(mkdtemp=lambda **options: mkdtemp())


ALTER = {f.__name__: f for f in (placement_s, gone_s, free_bytes, ray_folder)}

if __name__ == "__main__":
    main(sys.argv.pop(1))
