"""The process that hands what a run writes to W&B: python -m orchestrator.tracking.follow …

It only reads the run folder, but for tracking.json and what W&B writes under wandb/. The driver
holds the other ends of its stdin and stdout: a line on stdin says that the run has ended, the end
of stdin that the driver was killed; stdout carries messages for the user, one JSON object a line.
Whatever goes wrong here is one message and the end of this process.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.evaluating.results import EVALUATIONS, SPLICE, TEST
from orchestrator.run_folder.transcoder_folder import TranscoderFolder
from orchestrator.tracking.names import STEP, held_out_figures, history_row, spliced_figures
from orchestrator.tracking.processes import end_children
from orchestrator.tracking.tail import Tail
from orchestrator.tracking.tracking_file import Destination, TrackingFile
from orchestrator.tracking.wandb_run import WandbRun

POLL_S = 1.0
# A point is safe when W&B has written or uploaded it, which it does every few seconds without
# telling; what it was given this long ago counts as safe.
SETTLED_S = 60.0
KILLED = 128 + signal.SIGKILL  # what a driver killed without a word would have returned


class Driver:
    """The process that started this one."""

    def __init__(self, finish_s: float) -> None:
        """Whatever wandb prints goes nowhere from here on; only `say` reaches the driver."""
        self.ended = threading.Event()
        self.exit_code = KILLED
        self.finish_s = finish_s
        self._out = os.dup(1)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, text: str, *, stopped: bool = False) -> None:
        with suppress(BrokenPipeError):
            os.write(self._out, json.dumps({"text": text, "stopped": stopped}).encode() + b"\n")

    def _listen(self) -> None:
        """Wait for the end of the run; then see that this process ends, even if wandb hangs."""
        if line := sys.stdin.readline():
            self.exit_code = int(line)
        self.ended.set()
        time.sleep(self.finish_s)
        self.say(f"W&B stopped: it was not finished after {self.finish_s:.0f} s", stopped=True)
        leave()


class Suite:
    """All transcoders of a run, as their files tell."""

    def __init__(
        self, folder: Path, specs: Mapping[str, Mapping[str, Any]], given_bytes: Mapping[str, int]
    ) -> None:
        self._specs = specs
        self._folders = {id: TranscoderFolder(folder / "transcoders" / id) for id in specs}
        self._tails = {
            id: Tail(place.metrics, given_bytes.get(id, 0)) for id, place in self._folders.items()
        }
        self._done: set[str] = set()
        self._splice = folder / EVALUATIONS / TEST / SPLICE
        self._spliced = b""  # what it held when it was looked at last

    def new_rows(self) -> list[dict[str, float]]:
        """What has been logged since, a row a step: transcoders that kept pace share rows."""
        rows: dict[float, dict[str, float]] = {}
        for id, tail in self._tails.items():
            for line in tail.read():
                row = history_row(id, line, self._specs[id]["aux_weight"])
                rows.setdefault(row[STEP], {}).update(row)
        return [rows[step] for step in sorted(rows)]

    def new_figures(self) -> dict[str, float]:
        """Held-out figures of the transcoders that are done since the last call; of the suite in
        its model, when they are there and whenever they are others: the first that are found may
        be of transcoders that this run trains further."""
        figures: dict[str, float] = {}
        for id, place in self._folders.items():
            if id not in self._done and place.final.exists():
                self._done.add(id)
                figures |= held_out_figures(id, json.loads(place.evaluation.read_bytes()))
        spliced = self._splice.read_bytes() if self._splice.exists() else b""
        if spliced not in (b"", self._spliced):
            figures |= spliced_figures(json.loads(spliced))
            self._spliced = spliced
        return figures

    @property
    def read_bytes(self) -> dict[str, int]:
        return {id: tail.offset for id, tail in self._tails.items()}

    @property
    def damaged(self) -> int:
        """Lines left out, because they were no JSON."""
        return sum(tail.damaged for tail in self._tails.values())


class Settling:
    """Tells which offsets were reached SETTLED_S ago."""

    def __init__(self) -> None:
        self._reached: deque[tuple[float, dict[str, int]]] = deque()

    def settled(self, now: float, offsets: dict[str, int]) -> dict[str, int] | None:
        """Take the offsets of now (seconds); give those that have settled since the last call."""
        self._reached.append((now, offsets))
        found = None
        while self._reached[0][0] <= now - SETTLED_S:
            found = self._reached.popleft()[1]
        return found


def follow(folder: Path, destination: Destination, driver: Driver) -> None:
    """Hand a run to W&B until the driver says that it has ended, or is gone."""
    resolved = (folder / "resolved.json").read_bytes()
    config = json.loads(resolved)
    file = TrackingFile.open(folder, resolved, destination)
    run = WandbRun(
        folder,
        id=file.id,
        mode=destination.mode,
        project=destination.project,
        entity=destination.entity,
        config=config,
        sections=list(config["specs"]),
        finish_s=0.9 * driver.finish_s,
    )
    file.save(folder)
    sync = f"`wandb sync {_shown(run, file.id)}` uploads it"
    driver.say(f"W&B: {run.url or f'offline run in {run.folder}; {sync}'}")
    before = dict(file.given_bytes)
    suite = Suite(folder, config["specs"], before)
    _hand_over(suite, run, file, folder, driver)
    if suite.damaged:
        driver.say(f"W&B: {suite.damaged} damaged lines of metrics.jsonl were left out")
    try:
        run.finish(driver.exit_code)
        file.given_bytes = suite.read_bytes
    except TimeoutError:
        file.given_bytes = before
        driver.say(f"W&B: not all was uploaded in {driver.finish_s:.0f} s; {sync}", stopped=True)
    file.save(folder)


def _hand_over(
    suite: Suite, run: WandbRun, file: TrackingFile, folder: Path, driver: Driver
) -> None:
    settling = Settling()
    while True:
        ended = driver.ended.is_set()  # first: what was written before the end is read below
        rows = suite.new_rows()
        for row in rows:
            run.log(row)
        if figures := suite.new_figures():
            run.summarize(figures)
        if settled := settling.settled(time.monotonic(), suite.read_bytes):
            file.given_bytes = settled
            file.save(folder)
        if not rows:
            if ended:
                return
            driver.ended.wait(POLL_S)


def _shown(run: WandbRun, id: str) -> str:
    """All that W&B keeps of this run, for a shell: each invocation has a folder of its own, which
    ends in -1 for the second that began within a second."""
    kind = "offline-run" if run.url is None else "run"
    return f"{shlex.quote(str(run.folder.parent))}/{kind}-*-{id}*"


def leave() -> None:
    """End now, with all that wandb has started; its own way out waits for uploads."""
    end_children(os.getpid())
    os._exit(1)


def _reason(error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    key = os.environ.get("WANDB_API_KEY")
    return (text.replace(key, "***") if key else text)[:400]


def main() -> None:
    folder, mode, project, entity, server, finish_s = sys.argv[1:]
    destination = Destination(mode, project, entity or None, server or None)
    # The end of the run comes from the driver, also when a signal meant to end it reaches us too.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)
    driver = Driver(float(finish_s))
    try:
        follow(Path(folder), destination, driver)
    except Exception as error:  # anything at all that wandb raises: it must not matter
        hint = " (tracking.wandb: offline needs no server)" if mode == "online" else ""
        driver.say(
            f"W&B stopped: {_reason(error)}{hint}; training goes on, metrics.jsonl has everything",
            stopped=True,
        )
        leave()


if __name__ == "__main__":
    main()
