"""Real Ray clusters of one or more nodes by `ray start`: all on this machine, or on hosts that are
made of it (hosts.py). Linux only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from socket import socket

import psutil

from orchestrator.ray_backend.janitor import VARIABLE, Janitor
from tests.ray.harm import until

NODE = "MTC_TEST_NODE"  # in the environment of every process of a node
# A command whose processes get no 300 GB, whatever this machine and its settings would promise.
LIMITED = ("sh", "-c", 'ulimit -v 300000000 && exec "$@"', "sh")
STORE_BYTES = 80 * 2**20
# A node that is killed is missed at once, not after a quarter of a minute; one that is cut off, in
# seven seconds, not in more than a minute.
_BRISK = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "2",
    "RAY_metrics_report_interval_ms": "60000",
}


class Nodes:
    """One cluster. `token` None: it has an open door."""

    def __init__(self, token: str | None) -> None:
        self._janitor = Janitor()
        self.token, self.address, self.dashboard = token, "", ""
        self._raylets: dict[str, int] = {}

    def start(
        self,
        name: str,
        cpus: int,
        before: Sequence[str] = (),
        memory_bytes: int = 8 * 10**9,
        ip: str = "",
        dashboard: bool = False,
    ) -> None:
        """Start a node; the first is the head. before: a command that runs `ray start` in turn.
        memory_bytes: what it says that it has. ip: its address, if it is on a host of its own.
        dashboard: of the head, to which jobs are sent."""
        folder = self._janitor.folder
        head = ["--head", "--port=0", f"--temp-dir={folder}", *self._dashboard_options(dashboard)]
        # Hosts share no /tmp.
        other = [f"--address={self.address}", *([f"--temp-dir={folder}/{name}"] if ip else [])]
        options = [
            *(other if self.address else head),
            *([f"--node-ip-address={ip}"] if ip else []),
            f"--num-cpus={cpus}",
            f"--memory={memory_bytes}",
            f"--object-store-memory={STORE_BYTES}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--disable-usage-stats",
        ]
        command = [*before, sys.executable, "-m", "ray.scripts.scripts", "start", *options]
        own = {VARIABLE: str(folder), NODE: f"{folder}/{name}", **_BRISK}
        if self.token is None:  # or it would take the one in the home folder
            own["RAY_AUTH_MODE"] = "disabled"
        done = subprocess.run(command, env=with_token(self.token, own), capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        if not self.address:
            self.address = (folder / "ray_current_cluster").read_text().strip()
        (raylet,) = self._processes(name, "raylet")
        self._raylets[name] = raylet.pid

    def _dashboard_options(self, wanted: bool) -> list[str]:
        if not wanted:
            return ["--include-dashboard=false"]
        with socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.dashboard = f"http://127.0.0.1:{port}"
        return ["--include-dashboard=true", f"--dashboard-port={port}"]

    def kill(self, name: str, program: str = "raylet") -> None:
        """Kill one of a node's programs, and wait until it is gone."""
        (victim,) = self._processes(name, program)
        os.kill(victim.pid, signal.SIGKILL)
        until(lambda: not self._processes(name, program), f"the end of {name}'s {program}")

    def drain(self, name: str, seconds: int) -> None:
        """Announce that a node will be taken away; nothing is done to it."""
        (raylet,) = self._processes(name, "raylet")
        (option,) = [word for word in raylet.cmdline() if word.startswith("--node_id=")]
        options = [
            f"--address={self.address}",
            f"--node-id={option.partition('=')[2]}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message=wanted elsewhere",
            f"--deadline-remaining-seconds={seconds}",
        ]
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *options]
        done = subprocess.run(command, env=with_token(self.token), capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def node_of(self, pid: int) -> str:
        """The name of the node to which a worker belongs; nothing if it has ended."""
        try:
            return Path(psutil.Process(pid).environ()[NODE]).name
        except psutil.NoSuchProcess:
            return ""

    def workers(self, title: str) -> dict[int, str]:
        """Processes that work for living nodes under a title with that word: pid -> node."""
        raylets = list(self._raylets.items())  # another thread may be starting a node
        return {
            pid: node
            for node, raylet in raylets
            for pid in _children(raylet)
            if title in _title(pid)
        }

    def alive(self, name: str) -> bool:
        return len(self._processes(name, "raylet")) == 1

    def down(self) -> None:
        self._janitor.sweep(keep=False)

    def _processes(self, name: str, program: str) -> list[psutil.Process]:
        mark = f"{self._janitor.folder}/{name}"
        return [process for process in psutil.process_iter() if _is(process, program, mark)]


def _children(pid: int) -> list[int]:
    """Of all threads of a process; none if it has gone."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in children.read_text().split()]
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def with_token(token: str | None, more: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's environment, without whatever it knows of Ray."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    if token is not None:
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return {**env, "OMP_NUM_THREADS": "1", **more}


def _is(process: psutil.Process, program: str, mark: str) -> bool:
    try:
        alive = process.name() == program and process.status() != psutil.STATUS_ZOMBIE
        return alive and process.environ().get(NODE) == mark
    except psutil.Error:  # gone meanwhile, or somebody else's
        return False
