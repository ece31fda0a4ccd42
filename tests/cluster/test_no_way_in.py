"""Addresses where there is no cluster, and clusters that do not let us in: one message, exit 2."""

from __future__ import annotations

import socket
import time
from concurrent import futures

import grpc
import pytest
from ray.core.generated import gcs_service_pb2
from ray.core.generated.gcs_service_pb2_grpc import (
    NodeInfoGcsServiceServicer,
    add_NodeInfoGcsServiceServicer_to_server,
)

from mtc_core.errors import ConfigError
from orchestrator.ray_backend import head
from tests.cluster.runs import privately, run
from tests.e2e.runs import write_manifest

cluster = pytest.mark.cluster
ALONE = ("unshare", "--pid", "--fork", "--mount-proc")


@pytest.fixture
def manifest(model, tmp_path):
    return write_manifest(tmp_path, model)


@pytest.fixture
def listening():
    """A port where connections are taken, and nobody ever says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def unused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", ":6379", "h:0", "http://h:8265", ""])
def test_what_is_no_address_is_told_from_one(address):
    with pytest.raises(ConfigError, match=f"--address {address}: not an address of a Ray cluster"):
        head.find_head(address)


def test_the_ray_client_is_refused_with_the_two_ways_that_there_are():
    with pytest.raises(ConfigError, match=r"node of the cluster with --address auto.*job submit"):
        head.find_head("ray://localhost:10001")


def test_where_nothing_listens_is_told_at_once(unused):
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"no Ray head answers there \(Connection refused\)"):
        head.find_head(unused)
    assert time.monotonic() - began < 2


def test_silence_is_waited_for_and_the_user_knows(listening, monkeypatch, capsys):
    monkeypatch.setattr(head, "QUICK_S", 0.2)
    monkeypatch.setattr(head, "ANSWER_S", 0.4)
    with pytest.raises(ConfigError, match=r"no Ray head answers there \(silent for 1 s\)"):
        head.find_head(listening)
    assert capsys.readouterr().err == f"waiting for Ray's head at {listening}, 0 s at most\n"


def test_what_is_not_ray_is_told_from_ray():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(ConfigError, match=r"no Ray head answers there \(what answers is not Ray\)"):
        head.find_head(f"127.0.0.1:{port}")
    server.stop(None)


def test_another_version_of_ray_is_named_with_the_command():
    """A head of another version cannot be had here: this one only says that it is one."""

    class Newer(NodeInfoGcsServiceServicer):
        def CheckAlive(self, request, context):
            return gcs_service_pb2.CheckAliveReply(ray_version="2.99.0")

        def GetAllNodeInfo(self, request, context):
            return gcs_service_pb2.GetAllNodeInfoReply()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    add_NodeInfoGcsServiceServicer_to_server(Newer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(ConfigError) as raised:
        head.find_head(f"127.0.0.1:{port}")
    server.stop(None)
    assert "the cluster runs Ray 2.99.0, and here is Ray" in str(raised.value)
    assert "pip install 'ray[default]==2.99.0'" in str(raised.value)


@cluster
def test_a_command_whose_address_leads_nowhere_ends_in_one_message(manifest, tmp_path, unused):
    ended = run(manifest, tmp_path, env={"RAY_ADDRESS": unused})
    assert ended.code == 2 and ended.out == "" and ended.clean, ended
    assert ended.err.startswith(f"--address {unused}: no Ray head answers there")
    assert "leave --address and RAY_ADDRESS out" in ended.err and ended.err.count("\n") == 1


@cluster
@pytest.mark.parametrize("known", ["none", "another"])
def test_a_cluster_that_wants_a_token_says_so(nodes, somebody, manifest, tmp_path, known):
    home = tmp_path / "home"
    home.mkdir()
    token = {"none": None, "another": "0" * 64}[known]
    ended = run(
        manifest, tmp_path, "--address", nodes.address, token=token, env={"HOME": str(home)}
    )
    assert ended.code == 2 and ended.out == "" and ended.clean, ended
    assert f"--address {nodes.address}: the cluster asks for a token" in ended.err
    assert "~/.ray/auth_token" in ended.err and ended.err.count("\n") == 1


@cluster
@pytest.mark.parametrize(
    "which, message",
    [
        ("auto", "--address auto: no Ray runs on this machine; start one (`ray start --head`)"),
        ("theirs", "this machine is not a node of that cluster; make it one (`ray start --addr"),
    ],
)
def test_a_machine_without_ray_is_told_what_to_start(
    nodes, somebody, token, manifest, tmp_path, which, message
):
    """A machine that shares no processes with the cluster: a PID namespace of its own."""
    address = nodes.address if which == "theirs" else which
    env = {"RAY_TMPDIR": str(tmp_path)}
    options = ("--address", address)
    ended = run(manifest, tmp_path, *options, token=token, env=env, before=privately(ALONE))
    assert ended.code == 2 and ended.out == "" and ended.clean, ended
    assert message in ended.err and ended.err.count("\n") == 1
