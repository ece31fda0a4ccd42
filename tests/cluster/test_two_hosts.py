"""One run on two hosts, over a network that is there, is gone for a moment, or is gone for long."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.hosts import Host, network_of, refusal, two_hosts
from tests.cluster.nodes import Nodes, with_token
from tests.cluster.runs import Started
from tests.e2e.runs import finals
from tests.ray.harm import steps_on, trainer_of, until

pytestmark = pytest.mark.cluster
# Asks the head on what addresses its nodes are.
ADDRESSES = """
import json, sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info().values()
print(json.dumps(sorted(node.node_manager_address for node in nodes)))
"""
# Says which hosts it has, and has them until it is killed.
HOLDS_HOSTS = """
import time
from tests.cluster.hosts import two_hosts
with two_hosts() as hosts:
    print(*(host.name for host in hosts), flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="session", autouse=True)  # before the run to compare with
def allowed():
    if why := refusal():
        pytest.skip(why)


@pytest.fixture(scope="module")
def hosts():
    with two_hosts() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def both(hosts, token):
    """A cluster of the nodes `one`, which is the head, and `two`, with one CPU each, so that of two
    cells each host has one."""
    nodes = Nodes(token)
    try:
        for name, host in zip(("one", "two"), hosts, strict=True):
            nodes.start(name, cpus=1, before=host.before, ip=host.ip)
        yield nodes
    finally:
        nodes.down()


@pytest.fixture
def started(longer, hosts, both, token, tmp_path):
    """A run with its driver on the head's host."""
    options = ("--address", both.address, "--set", "resources.cells=2")
    return Started(longer[0], tmp_path, *options, token=token, before=hosts[0].before)


@pytest.fixture
def transcoders(longer, started, tmp_path):
    """The folder of each in that run, once all have a trainer."""
    names = os.listdir(longer[1] / "transcoders")
    paths = [tmp_path / "small" / "transcoders" / name for name in names]
    for path in paths:
        until(partial(trainer_of, path), f"a trainer of {path}")
    return paths


def trainer_on(host: Host, transcoder: Path) -> int | None:
    """The process that trains it now, if that is on this host."""
    pid = trainer_of(transcoder)
    return pid if pid and network_of(pid) == host.network else None


def test_hosts_are_gone_after_a_failure_and_after_a_kill():
    with pytest.raises(ZeroDivisionError), two_hosts() as failed:
        assert all(host.there for host in failed)
        _ = 1 / 0
    assert not any(host.there for host in failed)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_HOSTS], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        orphans = [Host(name, ip="") for name in holder.stdout.readline().split()]
        assert len(orphans) == 2 and all(host.there for host in orphans)
        holder.kill()
    assert all(host.there for host in orphans)
    with two_hosts():
        assert not any(host.there for host in orphans)


def test_one_run_on_two_hosts_ends_with_the_same_bits(
    longer, hosts, both, started, transcoders, token, tmp_path
):
    """And a cable that is out for a second is not worth a word."""
    one, two = hosts
    received = [host.received_bytes for host in hosts]
    assert network_of(started.process.pid) == one.network != network_of(os.getpid())
    away = [path for path in transcoders if trainer_on(two, path)]
    here = [path for path in transcoders if trainer_on(one, path)]
    assert away and here and len(away) + len(here) == len(transcoders)
    steps_on(away[0], 1)
    with two.cut_off():
        time.sleep(1)
    ended = started.end()
    assert ended.code == 0 and ended.clean and not ended.err and "died" not in ended.out, ended
    assert f"joined the Ray cluster at {one.ip}:" in ended.out
    assert finals(tmp_path / "small") == finals(longer[1])
    more = [host.received_bytes - before for host, before in zip(hosts, received, strict=True)]
    assert min(more) > 10_000, more
    command = [*two.before, sys.executable, "-c", ADDRESSES, both.address]
    addresses = json.loads(subprocess.check_output(command, env=with_token(token)))
    assert addresses == [one.ip, two.ip]


def test_rows_go_from_a_producer_on_one_host_to_a_cell_on_the_other(
    longer, hosts, both, token, tmp_path
):
    """Each host has room for one of them."""
    received = [host.received_bytes for host in hosts]
    keys = ("topology=split", "producers=1", "cells=1")
    split = [word for key in keys for word in ("--set", f"resources.{key}")]
    options = ("--address", both.address, *split)
    ended = Started(longer[0], tmp_path, *options, token=token, before=hosts[0].before).end()
    assert ended.code == 0 and ended.clean and not ended.err and "died" not in ended.out, ended
    assert finals(tmp_path / "small") == finals(longer[1])
    log = (tmp_path / "small" / "log.txt").read_text()
    places = {re.search(rf"{who}\S* runs on (\S+)", log)[1] for who in ("producer-0", "trainer-0")}
    assert places == {host.name for host in hosts}, log
    more = [host.received_bytes - before for host, before in zip(hosts, received, strict=True)]
    # Five distinct tensors of 400 steps, of 256 rows with 32 numbers each.
    assert max(more) > 5 * 400 * 256 * 32 * 4, more


def test_a_cell_whose_host_is_cut_off_goes_on_when_the_host_is_back(
    longer, hosts, both, started, transcoders, tmp_path
):
    """It is told once. The node that was given up ends itself, and its trainer, as soon as it hears
    of that; until then they live, and the trainer holds its transcoders."""
    two, log = hosts[1], tmp_path / "small" / "log.txt"
    away = next(path for path in transcoders if trainer_on(two, path))
    trainer = trainer_on(two, away)
    steps_on(away, 1)
    with two.cut_off():
        until(lambda: "died" in log.read_text(), "word of the host that is cut off")
        assert trainer_on(two, away) == trainer and both.alive("two")
    until(lambda: not both.alive("two"), "the end of the node that was given up")
    both.start("two", cpus=1, before=two.before, ip=two.ip)
    # Its lock may be held for a moment only: on a fast machine nothing is left to be trained.
    until(lambda: log.read_text().count(f" runs on {two.name}") == 2, "another trainer there")
    ended = started.end()
    assert ended.code == 0 and ended.clean and not ended.err, ended
    assert ended.out.count("died: its node is gone, or cannot be reached; it goes on from its") == 1
    assert finals(tmp_path / "small") == finals(longer[1])
