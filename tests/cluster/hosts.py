"""Two hosts, made of this machine: network namespaces with an address each, joined by a cable that
can be pulled. Linux only, and for root.

    python -m tests.cluster.hosts up     # says how to run a command on either
    python -m tests.cluster.hosts down

Each has a loopback of its own, so that what goes from one to the other goes by the cable. They
share all files, as on a shared file system; unlike real hosts they see each other's processes.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_CABLE = "cable"  # what either host calls its end of it
_NAMESPACES = Path("/run/netns")
_numbers = itertools.count()
# A name for whatever `unshare` starts, as a machine has one; then that itself, as the same process.
_NAMED = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"'


@dataclass(frozen=True, slots=True)
class Host:
    """name: of its namespace, and what processes there take for the name of their machine."""

    name: str
    ip: str

    @property
    def before(self) -> tuple[str, ...]:
        """A command that runs another one on this host, as the same process."""
        enter = ("ip", "netns", "exec", self.name, "unshare", "--uts")
        return (*enter, "sh", "-c", _NAMED, self.name)

    @property
    def there(self) -> bool:
        return (_NAMESPACES / self.name).exists()

    @property
    def network(self) -> int:
        """Compare with network_of."""
        return (_NAMESPACES / self.name).stat().st_ino

    @property
    def received_bytes(self) -> int:
        """What has come by the cable."""
        (end,) = json.loads(self.ip_command("-s", "-j", "link", "show", "dev", _CABLE))
        return end["stats64"]["rx"]["bytes"]

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """While inside, nothing comes or goes by the cable. No connection is told."""
        self.link(_CABLE, "down")
        try:
            yield
        finally:
            self.link(_CABLE, "up")

    def link(self, name: str, state: str) -> None:
        self.ip_command("link", "set", name, state)

    def ip_command(self, *words: str) -> str:
        return _run("ip", "-n", self.name, *words)


def network_of(pid: int) -> int | None:
    """The same number for all processes of one host, and another for those of the other; None for
    one that has gone."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Of this process; gone at the end, with the cable."""
    _remove_orphans()
    hosts = _pair(f"mtc-{os.getpid()}-{next(_numbers)}")
    try:
        _begin(*hosts)
        yield hosts
    finally:
        _remove(*hosts)


def refusal() -> str | None:
    """Why there can be no such hosts here, or None."""
    try:
        with two_hosts() as (one, _):
            _run(*one.before, "true")
    except FileNotFoundError as error:
        return f"there is no {error.filename}"
    except subprocess.CalledProcessError as error:
        return f"this user may not have network namespaces ({error.stderr.strip()})"
    return None


def _pair(name: str) -> tuple[Host, Host]:
    return Host(f"{name}-one", "10.77.0.1"), Host(f"{name}-two", "10.77.0.2")


def _begin(one: Host, two: Host) -> None:
    """No end of the cable, and no address, is ever to be seen on the machine itself."""
    for host in (one, two):
        _run("ip", "netns", "add", host.name)
        host.link("lo", "up")
    ends = (_CABLE, "type", "veth", "peer", "name", _CABLE, "netns", two.name)
    one.ip_command("link", "add", *ends)
    for host in (one, two):
        host.ip_command("address", "add", f"{host.ip}/24", "dev", _CABLE)
        host.link(_CABLE, "up")


def _remove(*hosts: Host) -> None:
    """Also those that have only half begun. What still runs there is cut off."""
    for host in hosts:
        with suppress(subprocess.CalledProcessError):  # it goes with its other end
            host.ip_command("link", "delete", _CABLE)
        with suppress(subprocess.CalledProcessError):
            _run("ip", "netns", "delete", host.name)


def _remove_orphans() -> None:
    """Of processes that were killed, and could not do it themselves."""
    for path in _NAMESPACES.glob("mtc-*"):
        owned = re.fullmatch(r"mtc-(\d+)-\d+-(one|two)", path.name)
        if owned and not psutil.pid_exists(int(owned[1])):
            _remove(Host(path.name, ip=""))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(word: str) -> None:
    hosts = _pair("mtc")
    _remove(*hosts)
    if word == "up":
        _begin(*hosts)
        for host in hosts:
            sys.stdout.write(f"{host.ip}: ip netns exec {host.name} COMMAND\n")
        sys.stdout.write(f"pull the cable: ip -n {hosts[1].name} link set {_CABLE} down (or up)\n")


if __name__ == "__main__":
    main(sys.argv[1])
