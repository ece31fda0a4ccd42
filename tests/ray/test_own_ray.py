"""`mtc-orchestrate run` as it comes: a Ray of its own, with its dashboard, of which nothing is left
at the end."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.e2e.runs import finals, run_in_child, write_manifest
from tests.ray.commands import Command, adopting, running
from tests.ray.harm import until

TRAINER = "ray::TranscoderTrainer"


@pytest.fixture(autouse=True)
def adopted():
    with adopting():
        yield


def test_a_run_ends_the_ray_that_it_started_and_gives_the_bits_of_none(model, tmp_path):
    """With two threads: a process that Ray starts would have one, and other sums."""
    manifest = write_manifest(tmp_path, model, threads=2, tokens=256 * 12)
    assert run_in_child(manifest, tmp_path / "here") == 0
    with running(manifest, tmp_path, dashboard=True) as command:
        folder = command.ray_folder()
        with held_trainer(command):
            assert_trainers_go_first(command)
            assert_dashboard_is_ours_alone(command)
            assert_driver_does_without_torch(command)
        assert command.exit_code() == 0, command.printed
        command.assert_nothing_is_left(limit_s=1)
        assert not folder.exists()
        assert "forward passes in all: the first block ran" in command.printed
        assert "ray::" not in command.printed and "Traceback" not in command.printed
    assert finals(tmp_path / "small") == finals(tmp_path / "here" / "small")


@contextmanager
def held_trainer(command: Command) -> Iterator[None]:
    """Inside, the trainer stands still: nothing ends meanwhile."""
    trainer = until(lambda: programs(command).get(TRAINER), "a trainer")[0]
    trainer.send_signal(signal.SIGSTOP)
    yield
    trainer.send_signal(signal.SIGCONT)


def assert_trainers_go_first(command: Command) -> None:
    ours, there = os.getpriority(os.PRIO_PROCESS, 0), programs(command)
    for name in (TRAINER, "raylet", "gcs_server"):
        assert policies(there[name]) == {(os.SCHED_OTHER, ours)}, name
    modules = [name for name in there if name.startswith("ray-dashboard-")]
    assert len(modules) > 3, sorted(there)
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    for name in ("dashboard", "log_monitor", "monitor", *agents, *modules):
        assert policies(there[name]) == {(os.SCHED_IDLE, ours)}, f"{name} takes the trainers' time"


def assert_dashboard_is_ours_alone(command: Command) -> None:
    """It is where the run said, on loopback only, asks for the token, and names our trainer."""
    said = r"Ray dashboard: (http://127\.0\.0\.1:(\d+)) \(it asks for the token: ray get-auth-t"
    url, port = until(lambda: re.search(said, command.printed), "its address").groups()
    with pytest.raises(urllib.error.HTTPError) as refused:
        read(f"{url}/api/v0/actors", token="0" * 64)
    assert refused.value.code in (401, 403)
    doors = [c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {door.ip for door in doors if door.port == int(port)} == {"127.0.0.1"}
    actors = read(f"{url}/api/v0/actors?detail=1", token=os.environ["RAY_AUTH_TOKEN"])
    (actor,) = actors["data"]["result"]["result"]
    assert (actor["name"], actor["ray_namespace"]) == ("trainer-0[L00-L02]", "mtc-small")
    assert actor["class_name"] == "TranscoderTrainer"


def assert_driver_does_without_torch(command: Command) -> None:
    """Tokenizers need it: text is read by a process of its own."""
    until(lambda: list(command.run.glob("tokens/window-*.json")), "tokens")
    mapped = Path(f"/proc/{command.pid}/maps").read_text()
    assert "_raylet" in mapped and "libtorch" not in mapped


def read(url: str, token: str) -> dict:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def programs(command: Command) -> dict[str, list[psutil.Process]]:
    """What the driver has started, by the name of the program or the title that it has given
    itself: `python -u FOLDER/log_monitor.py`, `ray::NAME.METHOD`, `ray-dashboard-NAME (…)`."""
    found: dict[str, list[psutil.Process]] = {}
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(command.pid).children(recursive=True):
            with suppress(psutil.Error):
                for word in process.cmdline()[:3]:
                    name = Path(word.split(" ")[0]).name.partition(".")[0]
                    found.setdefault(name, []).append(process)
    return found


def policies(processes: list[psutil.Process]) -> set[tuple[int, int]]:
    """(scheduling policy, niceness) of all their threads."""
    return {
        (os.sched_getscheduler(thread.id), os.getpriority(os.PRIO_PROCESS, thread.id))
        for process in processes
        for thread in process.threads()
    }
