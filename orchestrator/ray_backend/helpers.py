"""Ray's helper processes give way to trainers.

Dashboard, agents and log monitor wake up some hundred times a second. They take 5 % of one core,
but a trainer that computes on all cores loses more: where one of its threads is put off, the others
wait for it at the end of every parallel loop. What it costs: benchmarks/ray_cost.py.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress

import psutil

_WITH_CHILDREN = re.compile(
    r"/ray/(dashboard/dashboard|_private/log_monitor|autoscaler/_private/monitor)\.py"
)
_AGENT = re.compile(r"^ray::\w+Agent|/ray/dashboard/agent\.py|/runtime_env/agent/main\.py")


def give_way() -> None:
    """The helpers of the Ray that this process has started run when a core has nothing else to do
    (Linux only), threads that they start later included. Ray itself and trainers are left alone."""
    if sys.platform != "linux":
        return
    for process in _helpers():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or not allowed: it only costs time
            for thread in process.threads():
                os.sched_setscheduler(thread.id, os.SCHED_IDLE, os.sched_param(0))


def _helpers() -> Iterator[psutil.Process]:
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            command = process.cmdline()
            if not command or command[0].endswith("/raylet"):  # it is told how to start the agents
                continue
            words = " ".join(command)
            if _WITH_CHILDREN.search(words):
                yield from [process, *process.children(recursive=True)]
            elif _AGENT.search(words):
                yield process
