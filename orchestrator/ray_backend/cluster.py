"""The Ray that cells run on: started here and ended here, or joined and left as it was."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGTERM, getsignal, raise_signal, signal
from typing import Any

from mtc_core.errors import ConfigError
from orchestrator.cells.job import Job, ProducerJob
from orchestrator.failures import Stopped
from orchestrator.interrupts import Interrupted, forget_alarm
from orchestrator.planning.inventory import Gpu, Inventory
from orchestrator.planning.preflight import human_bytes
from orchestrator.ray_backend.janitor import VARIABLE, Janitor

LOOPBACK = "127.0.0.1"
SMALL_STORE_BYTES = 100 * 2**20  # statuses, where activations never leave their process
_TOKEN = Path("~/.ray/auth_token").expanduser()

# Read by Ray when it is imported. An unauthenticated Ray runs anybody's code as us: one of our own
# has a token, which Ray makes if need be; one that we join without having any may want none.
if _TOKEN.exists() or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
    os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray  # noqa: E402
from ray._private import ray_constants as _ray_constants  # noqa: E402
from ray._private import utils as _ray_utils  # noqa: E402
from ray._private import worker as _ray_worker  # noqa: E402

from orchestrator.ray_backend.explain import not_started, one_line  # noqa: E402
from orchestrator.ray_backend.head import find_head, has_open_door  # noqa: E402
from orchestrator.ray_backend.helpers import give_way  # noqa: E402

log = logging.getLogger("mtc")


def _log_line(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    text = " ".join(map(str, data["lines"]))
    log.info("Ray: %s", text.strip().partition("\n")[0])  # what follows is its own log


# Ray prints a paragraph to the terminal for every process that dies, whatever its logging options
# say (2.60). What a user is to know we say ourselves.
if hasattr(_ray_worker, "print_to_stdstream"):
    _ray_worker.print_to_stdstream = _log_line


class Cluster:
    """One connection to Ray. `lines` say what a user wants to know of it."""

    def __init__(self, lines: list[str], janitor: Janitor | None) -> None:
        self.lines, self._janitor = lines, janitor

    @classmethod
    def start(cls, run: str, jobs: Sequence[Job], dashboard: bool) -> Cluster:
        """A Ray of our own on this machine, on loopback only, which ends with this process. Raises
        Stopped where Ray cannot start."""
        try:
            janitor = Janitor()
        except OSError as error:
            raise Stopped(f"no folder can be made for Ray: {error}") from None
        around = {VARIABLE: str(janitor.folder), **_niceness(), **_visible_gpus(jobs)}
        with _environment(around), _own_sigterm(), _on_loopback():
            try:
                context: Any = ray.init(
                    address="local",
                    namespace=namespace(run),
                    num_cpus=max(os.cpu_count() or 1, sum(map(cpus, jobs))),
                    num_gpus=None if any(map(gpus, jobs)) else 0,
                    object_store_memory=_store_bytes(jobs),
                    _system_config=_system_config(jobs),
                    include_dashboard=dashboard,
                    dashboard_host=LOOPBACK,
                    _temp_dir=str(janitor.folder),
                    _memory=2 * sum(job.memory_bytes for job in jobs),  # the preflight has looked
                    **_QUIET,
                )
            except Exception as error:
                janitor.sweep(keep=True)
                raise Stopped(not_started(error, janitor.folder)) from error
            except BaseException:
                janitor.sweep(keep=False)
                raise
        give_way()
        with suppress(OSError):  # Ray writes it for anyone to read
            _TOKEN.chmod(0o600)
        lines = []
        if url := context.dashboard_url:
            lines = [f"Ray dashboard: http://{url} (it asks for the token: ray get-auth-token)"]
        return cls(lines, janitor)

    @classmethod
    def join(cls, run: str, address: str) -> Cluster:
        """A running cluster. Raises ConfigError where there is none that lets us in."""
        head = find_head(address)
        # Actors have fixed names: another run of this name, or the rest of an earlier one, may be
        # there as well.
        own = f"{namespace(run)}-{secrets.token_hex(4)}"
        with _own_sigterm():
            try:
                context: Any = ray.init(address=head, namespace=own, **_QUIET)
            except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as error:
                ray.shutdown()
                raise ConfigError(f"--address {address}: {one_line(error)}") from None
        lines = [f"joined the Ray cluster at {context.address_info['gcs_address']}"]
        if url := context.dashboard_url:
            lines.append(f"Ray dashboard: http://{url}")
        if has_open_door(head):
            lines.append(
                "warning: this cluster has no token authentication: whoever reaches it can run "
                "code as you (start it with RAY_AUTH_MODE=token to have it ask for one)"
            )
        return cls(lines, None)

    def inventory(self, here: Inventory, device: str) -> Inventory:
        """What the whole cluster has; the disk is that of `here`."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        count = int(sum(node.get("GPU", 0) for node in nodes))
        found = tuple(Gpu("GPU of the cluster", 0, None) for _ in range(count))
        of_nodes = {int(node.get("GPU", 0)) for node in nodes} - {0}
        return Inventory(
            cores=here.cores,
            memory_bytes=int(sum(node.get("memory", 0) for node in nodes)),
            disk_bytes=here.disk_bytes,
            gpus=None if device == "cpu" else found,
            node_gpus=of_nodes.pop() if len(of_nodes) == 1 and len(nodes) > 1 else None,
            cpu=here.cpu,
            node_cpus=tuple(int(node.get("CPU", 0)) for node in nodes if node.get("CPU")),
        )

    def check_stores(self, jobs: Sequence[Job]) -> list[str]:
        """Of a cluster that was joined: whether what producers publish fits into the object store
        of whatever nodes they come to. Sentences for the user; raises ConfigError where not even
        one fits anywhere."""
        producers = [job for job in jobs if isinstance(job, ProducerJob)]
        if self._janitor or not producers:
            return []
        each, cores = producers[0].store_bytes, cpus(producers[0])
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        stores = [
            (int(node.get("object_store_memory", 0)), min(len(producers), room))
            for node in nodes
            if (room := int(node.get("CPU", 0)) // cores)
        ]
        small = [(size, count) for size, count in stores if size < count * each]
        if not small:
            return []
        told = (
            f"a producer publishes up to {human_bytes(each)}, and the object store of "
            f"{len(small)} of {len(stores)} nodes has {human_bytes(min(small)[0])} for as many as "
            f"{max(count for _, count in small)} of them"
        )
        remedy = "lower resources.prefetch_steps, or start them with a larger --object-store-memory"
        if all(size < each for size, _ in stores):
            raise ConfigError(f"{told}; {remedy}")
        return [f"warning: {told}: what is too much Ray writes to disk; {remedy}"]

    def leave(self, clean: bool) -> None:
        """Disconnect; end the Ray that we started. clean: its logs may go, too."""
        with _own_sigterm():
            ray.shutdown()
        if self._janitor:
            self._janitor.sweep(keep=not clean)
            if not clean:
                log.info("Ray's logs are in %s", self._janitor.folder)


_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


def namespace(run: str) -> str:
    """Of the actors of one run, as the dashboard shows it."""
    return f"mtc-{run}"


def _store_bytes(jobs: Sequence[Job]) -> int:
    published = sum(job.store_bytes for job in jobs if isinstance(job, ProducerJob))
    return SMALL_STORE_BYTES + published


def _system_config(jobs: Sequence[Job]) -> dict[str, int]:
    """Freed objects are else given back a second late: what a producer puts there in a second comes
    on top of what is held (Ray 2.60). But to look a hundred times a second puts trainers off as
    often (benchmarks/LOG.md)."""
    if not any(isinstance(job, ProducerJob) for job in jobs):
        return {}
    return {"free_objects_period_milliseconds": 10}


def gpus(job: Job) -> int:
    return int(job.device != "cpu")


def cpus(job: Job) -> int:
    """A cell on a GPU keeps one core busy."""
    return 1 if gpus(job) else job.threads


def _niceness() -> dict[str, str]:
    """Ray would give trainers the lowest priority but four: every other process would go first."""
    name = "RAY_worker_niceness"
    return {} if name in os.environ else {name: "0"}


def _visible_gpus(jobs: Sequence[Job]) -> dict[str, str]:
    """Those that were planned for and no others, for a Ray that gives out all it sees."""
    indices = sorted({int(job.device.partition(":")[2]) for job in jobs if gpus(job)})
    if not indices:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [seen.split(",")[index] if seen else str(index) for index in indices]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names)}


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started inside listens on loopback alone. Else its head and all of its workers
    listen on every interface of the machine (2.60), the dashboard apart. Ray has a way for Macs,
    whose firewall asks; an address given as `_node_ip_address` it would replace by that of the
    machine."""
    before = _ray_constants.ENABLE_RAY_CLUSTER
    _ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        _ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set for the processes that are started inside, and not for later ones."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts its own handler in the place of ours, and exits, from wherever it is just then: a
    process that had half a connection crashed on its way out, once in twenty (2.60). Raises
    Interrupted for a signal that went there all the same."""
    handler = getsignal(SIGTERM)
    before = getattr(_ray_utils, "set_sigterm_handler", None)
    try:
        _ray_utils.set_sigterm_handler = lambda handler: None
        yield
    except SystemExit:
        signal(SIGTERM, handler)
        raise_signal(SIGTERM)  # to whom it was meant for
        raise Interrupted from None
    finally:
        if before:
            _ray_utils.set_sigterm_handler = before
        signal(SIGTERM, handler)
        forget_alarm()
