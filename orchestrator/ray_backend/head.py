"""Ray's head, asked directly: does it answer, does it let us in, is it still there?

Where nothing answers, Ray itself tries for a quarter of an hour and prints what it tries; when a
head is gone, it ends the whole process after a minute, without a chance to say what is saved.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray.core.generated import gcs_service_pb2
from ray.core.generated.gcs_service_pb2_grpc import (
    NodeInfoGcsServiceStub,
    NodeResourceInfoGcsServiceStub,
)

from mtc_core.errors import ConfigError
from orchestrator.failures import Stopped
from orchestrator.ray_backend.explain import OTHER_TOKEN

messages: Any = gcs_service_pb2  # made at run time: mypy sees nothing in it
QUICK_S, ANSWER_S = 3.0, 10.0
GONE_S = 30.0  # half of the minute after which Ray ends the process
EVERY_S = 5.0
_DOOR = {"8265": "the dashboard's", "10001": "the Ray Client's"}


def find_head(address: str) -> str:
    """HOST:PORT of the head that `--address` means: it answers, lets us in, runs our version of
    Ray, and this machine is a node of its cluster. Raises ConfigError."""
    there = _host_and_port(address)
    try:
        with init_grpc_channel(there, options=GLOBAL_GRPC_OPTIONS) as channel:
            stub = NodeInfoGcsServiceStub(channel)
            version = _version(stub, there)
            nodes = stub.GetAllNodeInfo(messages.GetAllNodeInfoRequest(), timeout=ANSWER_S)
    except grpc.RpcError as error:
        raise ConfigError(_no_head(there, error)) from None
    except ray.exceptions.AuthenticationError as error:  # a token file that cannot be read
        raise ConfigError(f"--address {there}: {error.message}") from None
    if version != ray.__version__:
        raise ConfigError(
            f"--address {there}: the cluster runs Ray {version}, and here is Ray "
            f"{ray.__version__}; install the same on all machines (pip install "
            f"'ray[default]=={version}')"
        )
    here = set(services.find_node_ids())
    if not any(node.node_id.hex() in here for node in nodes.node_info_list):
        raise ConfigError(
            f"--address {there}: this machine is not a node of that cluster; make it one (`ray "
            f"start --address={there}`), or run this command on one of its nodes (`ray job submit "
            "-- mtc-orchestrate run …`)"
        )
    return there


def has_open_door(address: str) -> bool:
    """Whether a head, which answers, lets in whoever comes without a token."""
    with grpc.insecure_channel(address, options=GLOBAL_GRPC_OPTIONS) as channel:
        return _answers(channel)


class Head:
    """The head that this process is connected to."""

    def __init__(self) -> None:
        self.address = ray.get_runtime_context().gcs_address
        self._asked_at = time.monotonic()
        self._silent_since: float | None = None
        self.answers = True

    def check(self, now: bool = False) -> None:
        """Ask again, if the last time is a while ago, or at any rate `now`. Raises Stopped when it
        is gone for good."""
        if self.answers and not now and time.monotonic() - self._asked_at < EVERY_S:
            return
        self._asked_at = time.monotonic()
        # Not one channel for all: gRPC prints a line when a head goes that it is connected to.
        with init_grpc_channel(self.address, options=GLOBAL_GRPC_OPTIONS) as channel:
            self.answers = _answers(channel)
        if self.answers:
            self._silent_since = None
            return
        # Not since the last answer: a driver that was busy for long has asked nobody meanwhile.
        if self._silent_since is None:
            self._silent_since = self._asked_at
        silent_s = time.monotonic() - self._silent_since
        if silent_s > GONE_S:
            raise Stopped(
                f"Ray's head at {self.address} has not answered for {silent_s:.0f} s (it was "
                "stopped, has crashed, or cannot be reached)"
            )

    def draining(self) -> dict[str, float]:
        """Nodes that are about to be taken away: by id, when, in ms since 1970; 0 where nobody has
        said. None of a head that is silent, which Ray's own clients would wait for."""
        with init_grpc_channel(self.address, options=GLOBAL_GRPC_OPTIONS) as channel:
            stub = NodeResourceInfoGcsServiceStub(channel)
            try:
                reply = stub.GetDrainingNodes(messages.GetDrainingNodesRequest(), timeout=QUICK_S)
            except grpc.RpcError:
                return {}
        return {n.node_id.hex(): n.draining_deadline_timestamp_ms for n in reply.draining_nodes}


def _answers(channel: Any) -> bool:
    try:
        stub = NodeInfoGcsServiceStub(channel)
        stub.CheckAlive(messages.CheckAliveRequest(), timeout=QUICK_S)
    except grpc.RpcError:
        return False
    return True


def _version(stub: NodeInfoGcsServiceStub, there: str) -> str:
    """The head's version of Ray. Says so where it takes long."""
    try:
        return stub.CheckAlive(messages.CheckAliveRequest(), timeout=QUICK_S).ray_version
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
    sys.stderr.write(f"waiting for Ray's head at {there}, {ANSWER_S:.0f} s at most\n")
    return stub.CheckAlive(messages.CheckAliveRequest(), timeout=ANSWER_S).ray_version


def _host_and_port(address: str) -> str:
    if address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: a run cannot be driven through the Ray Client; run it on a node "
            "of the cluster with --address auto, or send it there (`ray job submit -- "
            "mtc-orchestrate run …`)"
        )
    if address == "auto":
        try:
            address = services.get_ray_address_from_environment("auto", None)
        except ConnectionError:
            raise ConfigError(
                "--address auto: no Ray runs on this machine; start one (`ray start --head`), give "
                "HOST:PORT, or leave --address out for a Ray of the run's own"
            ) from None
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"--address {address}: not an address of a Ray cluster; give HOST:PORT as `ray start "
            "--head` printed it (often port 6379), or auto for the cluster of this machine"
        )
    return address


def _no_head(there: str, error: grpc.RpcError) -> str:
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return f"--address {there}: {OTHER_TOKEN}"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        details = f"silent for {QUICK_S + ANSWER_S:.0f} s"
    if code == grpc.StatusCode.UNIMPLEMENTED:
        details = "what answers is not Ray"
    port = there.rpartition(":")[2]
    hint = f"; port {port} is {_DOOR[port]}" if port in _DOOR else ""
    return (
        f"--address {there}: no Ray head answers there ({details.rpartition(': ')[2].strip('] ')}"
        f"{hint}); give HOST:PORT as `ray start --head` printed it (often port 6379), or leave "
        "--address and RAY_ADDRESS out for a Ray of the run's own"
    )
