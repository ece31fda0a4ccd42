"""A run on a cluster of several nodes that is harmed while it goes on, and begun again as often as
that is needed.

Who is harmed is told from Ray's processes, and when from files and stacks; no code of ours helps.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import psutil

from tests.cluster.nodes import Nodes
from tests.cluster.runs import Ended, Started
from tests.cluster.stacks import act_of
from tests.ray.harm import frozen_inside, half_written, newest_step, stop, until

TITLES = {"producer": "ActivationProducer", "trainer": "TranscoderTrainer"}
CATCH_S = 10.0  # how long a moment is waited for
INVOCATION_S = 150.0
HEAD, NODE_CPUS = "head", 2
STOPPED, TRIES = 3, 6


@dataclass(frozen=True, slots=True)
class Kill:
    """victim: producer, trainer, node or driver. moment: see Harmed._look. stride: so many steps
    are to be saved first. hold_s: for so long whoever was stopped in that moment, and was not
    killed, stays so: a trainer may outlive its node."""

    victim: str
    moment: str
    stride: int
    hold_s: float = 0.0


class Over(Exception):
    """The invocation has ended by itself."""


class Spares:
    """Nodes in the place of killed ones. One starts at a time: two would choose the same ports."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes, self._pool = nodes, ThreadPoolExecutor(1)
        self._coming: list[Future] = []
        self._count = 0

    def start(self) -> None:
        """Have one come, in a few seconds."""
        self._count += 1
        self._coming.append(self._pool.submit(self._nodes.start, f"node{self._count}", NODE_CPUS))

    def wait(self) -> None:
        """Until all are there. Raises what went wrong."""
        while self._coming:
            self._coming.pop().result()


class Harmed:
    """One run, from its first invocation on. `told`: each kill in words; `codes`: how each
    invocation ended."""

    def __init__(
        self,
        nodes: Nodes,
        spares: Spares,
        manifest: Path,
        root: Path,
        options: Sequence[str],
        rng: random.Random,
    ) -> None:
        self._nodes, self._spares, self._rng = nodes, spares, rng
        self._command = (manifest, root, "--address", nodes.address, *options)
        self.folder = root / "small"
        self.told: list[str] = []
        self.ended: list[Ended] = []
        self._over = False
        self._begin()

    def suffer(self, kill: Kill, steps: int) -> None:
        """Wait for the moment and kill; begin again what ended meanwhile."""
        if self._over:
            self.told.append(f"({kill.victim}: it was done before)")
            return
        target = min(steps, max(0, newest_step(self.folder)) + kill.stride)
        while True:
            try:
                self._until(lambda: self._victims(kill.victim))
                self._until(lambda: kill.stride == 0 or newest_step(self.folder) >= target)
                frozen, seen = self._catch(kill.moment)
                break
            except Over:
                if not self._goes_on():
                    self.told.append(f"({kill.victim}: it was done before)")
                    return
        step = max(0, newest_step(self.folder))
        victim = self._strike(kill, frozen)
        moment = kill.moment if seen == kill.moment else f"{kill.moment} ({seen})"
        self.told.append(f"{victim} in {moment}, step {step}")
        if kill.victim == "driver":
            self._end()
            self._begin()

    def to_its_end(self) -> Ended:
        """Begin again as long as the run says that this continues it; the last invocation."""
        while not self._over:
            self._goes_on()
        return self.ended[-1]

    def end(self) -> None:
        """Leave nothing, whatever went wrong."""
        with suppress(ProcessLookupError):
            self._started.process.kill()

    def workers(self, kind: str) -> dict[int, str]:
        """Processes of this invocation: pid -> node."""
        found = self._nodes.workers(TITLES[kind])
        return {pid: node for pid, node in found.items() if pid not in self._earlier}

    def _begin(self) -> None:
        self._earlier = {pid for title in TITLES.values() for pid in self._nodes.workers(title)}
        self._started = Started(*self._command, token=self._nodes.token)

    def _end(self) -> None:
        self.ended.append(self._started.end())

    def _goes_on(self) -> bool:
        """Wait for its end; whether it was begun again then."""
        self._end()
        ended = self.ended[-1]
        self._over = ended.code != STOPPED or len(self.ended) > TRIES
        if not self._over:
            self._begin()
        return not self._over

    def _until(self, condition) -> object:
        def one():
            if self._started.process.poll() is not None:
                raise Over
            return condition()

        return until(one, "a moment", INVOCATION_S)

    def _catch(self, moment: str) -> tuple[int | None, str]:
        """Stop a process in that moment: which, and what it was at. After a while, whatever it
        was at."""
        seen, deadline = "", time.monotonic() + CATCH_S
        while time.monotonic() < deadline:
            if self._started.process.poll() is not None:
                raise Over
            pid, seen = self._look(moment)
            if seen == moment:
                return pid, seen
            if seen in ("start or end", "imports", "load"):  # not yet
                deadline = time.monotonic() + CATCH_S
            time.sleep(self._rng.uniform(0.001, 0.02))
        return None, seen

    def _look(self, moment: str) -> tuple[int | None, str]:
        """Try it once: a process that is stopped now, if that is what it is at."""
        if moment == "any moment":
            return None, moment
        if moment in ("checkpoint write", "final write", "registration"):
            caught = frozen_inside(self._writing(moment))
            return (caught[0], moment) if caught else (None, "nothing is written")
        pids = self._able_to(moment)
        if not pids or not stop(pid := self._rng.choice(pids)):
            return None, "nobody there"
        seen = act_of(pid)
        if seen != moment:
            _let_go(pid)
        return pid, seen

    def _able_to(self, moment: str) -> list[int]:
        """Processes that may be at that."""
        producers, trainers = self.workers("producer"), self.workers("trainer")
        if moment == "load":
            return sorted({**producers, **trainers})
        return sorted(producers or trainers if moment in ("forward", "publish") else trainers)

    def _writing(self, moment: str) -> list[Path]:
        """Temporary files of processes of this invocation."""
        files = {
            "checkpoint write": lambda: half_written(self.folder),
            "final write": lambda: [*self.folder.glob("transcoders/*/.final.*.tmp")],
            "registration": lambda: [*self.folder.glob(".index.sqlite.*.tmp")],
        }[moment]()
        ours = {str(pid) for pid in (self._started.process.pid, *self.workers("trainer"))}
        return [path for path in files if path.name.split(".")[-2] in ours]

    def _strike(self, kill: Kill, frozen: int | None) -> str:
        """Kill one of that kind: the process that is stopped, if it can be; who it was."""
        if kill.victim == "node":
            name = self._kill_node(frozen)
        else:
            name = self._kill_process(kill.victim, frozen)
        if frozen is not None and kill.hold_s and _runs(frozen):
            name += f" (another stopped for {kill.hold_s:.0f} s more)"
            Timer(kill.hold_s, _let_go, [frozen]).start()
        elif frozen is not None:
            _let_go(frozen)
        return name

    def _victims(self, kind: str) -> dict[int, str]:
        """Processes of that kind, or on a node that may be killed: pid -> node."""
        if kind == "driver":
            return {self._started.process.pid: HEAD}
        if kind == "node":
            places = {**self.workers("producer"), **self.workers("trainer")}
            return {pid: node for pid, node in places.items() if node != HEAD}
        return self.workers(kind)

    def _kill_process(self, kind: str, frozen: int | None) -> str:
        found = self._victims(kind)
        if not found:
            return f"no {kind}"
        pid = frozen if frozen in found else self._rng.choice(sorted(found))
        os.kill(pid, signal.SIGKILL)
        until(lambda: not _runs(pid), f"the end of {pid}")
        return kind

    def _kill_node(self, frozen: int | None) -> str:
        """Kill a raylet that is not the driver's; another node comes."""
        found = self._victims("node")
        if not found:
            return "no node"
        node = found[frozen if frozen in found else self._rng.choice(sorted(found))]
        kinds = [kind for kind in TITLES for at in self.workers(kind).values() if at == node]
        self._nodes.kill(node)
        self._spares.start()
        return f"node of {' and '.join(kinds)}"


def _let_go(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
