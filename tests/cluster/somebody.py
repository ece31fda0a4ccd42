"""Somebody else at work on a cluster: an actor of his own, and most of the object store.

    python -m tests.cluster.somebody ADDRESS

Answers each line of standard input with one of JSON: how many times his actor has answered, and
what there is of others. `take N` first takes so many CPUs, `give` gives them back.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import ray
from ray._private import state
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from tests.cluster.nodes import STORE_BYTES, with_token

# What a trainer of the tiny run is called, in the namespace that belongs to its run.
NAME, NAMESPACE = "trainer-0[L00-L02]", "mtc-small"


class Somebody:
    """The tests' side: a process of its own, which holds no test up."""

    def __init__(self, address: str, token: str | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=with_token(token),
        )

    def say(self, line: str = "look") -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def leave(self) -> None:
        self._process.kill()
        self._process.communicate()


@ray.remote(num_cpus=0)
class Worker:
    """Counts, and has 95 % of the object store in use."""

    def __init__(self) -> None:
        self.count = 0
        self.held = [ray.put(bytes(STORE_BYTES // 20)) for _ in range(19)]

    def work(self) -> int:
        self.count += 1
        return self.count


def main(address: str) -> None:
    ray.init(address, namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False)
    worker = Worker.options(name=NAME).remote()
    ray.get(worker.work.remote())
    group = None
    for line in sys.stdin:
        if line.startswith("take"):
            group = placement_group([{"CPU": int(line.split()[1])}])
            assert group.wait(10)
        if line.startswith("give"):
            remove_placement_group(group)
        sys.stdout.write(json.dumps({"answers": ray.get(worker.work.remote()), **others()}) + "\n")
        sys.stdout.flush()


def others() -> dict[str, Any]:
    actors = state.actors().values()  # the public form of it needs a dashboard
    groups = placement_group_table().values()
    return {
        "trainers": sum(_is_trainer(actor) for actor in actors),
        "groups": [g["name"] for g in groups if g["name"] and g["state"] != "REMOVED"],
        "nodes": sum(node["Alive"] for node in ray.nodes()),
        "free_cpus": ray.available_resources().get("CPU", 0),
    }


def _is_trainer(actor: dict[str, Any]) -> bool:
    return actor["ActorClassName"] == "TranscoderTrainer" and actor["State"] != "DEAD"


if __name__ == "__main__":
    main(sys.argv[1])
