"""What Ray's object stores hold, asked from outside while a run is on: once every few ms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import node_manager_pb2
from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub

messages: Any = node_manager_pb2  # made at run time
EVERY_S = 0.005


@dataclass(slots=True)
class Held:
    """most_bytes: in any node's store at once. spilled_bytes: written to disk for want of room."""

    most_bytes: int = 0
    spilled_bytes: int = 0
    created: int = 0
    asked: int = 0


@contextmanager
def watched_stores() -> Iterator[Held]:
    """Of the Ray that this process joins meanwhile."""
    held, over = Held(), Event()
    thread = Thread(target=_watch, args=(held, over))
    thread.start()
    try:
        yield held
    finally:
        over.set()
        thread.join()


def _watch(held: Held, over: Event) -> None:
    stubs: dict[str, Any] = {}
    while not over.wait(EVERY_S):
        if not ray.is_initialized():
            continue
        try:
            nodes = [node for node in ray.nodes() if node["Alive"]]
        except Exception:  # it has just left
            continue
        stats = []
        for node in nodes:
            address = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
            if address not in stubs:
                stubs[address] = NodeManagerServiceStub(init_grpc_channel(address, options=[]))
            asked = messages.GetNodeStatsRequest(include_memory_info=False)
            stats.append(stubs[address].GetNodeStats(asked, timeout=5).store_stats)
        held.asked += 1
        for store in stats:
            held.most_bytes = max(held.most_bytes, store.object_store_bytes_used)
        held.spilled_bytes = sum(store.spilled_bytes_total for store in stats)
        held.created = sum(store.cumulative_created_objects for store in stats)
