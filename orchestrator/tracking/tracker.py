"""The driver's side of tracking: start the follower, pass on what it says, close it in time.

No call here raises, blocks (but for `close`, which is bounded) or touches training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from orchestrator.tracking.processes import end_tree

if TYPE_CHECKING:
    from orchestrator.manifest.schema import TrackingSection

FINISH_S = {"offline": 10.0, "online": 50.0}  # what the follower has to write or upload the rest
GRACE_S = 5.0  # after that, what it has to be gone
_GOES_ON = "training goes on, metrics.jsonl has everything"


class Tracker(Protocol):
    """Where metrics go beside the run folder. Messages are for the user, one line each."""

    def start(self) -> None:
        """Begin; the run folder has its resolved.json."""

    def poll(self) -> list[str]:
        """New messages. Never blocks."""

    def close(self, exit_code: int) -> list[str]:
        """End with the exit code of the run; the last messages. Takes FINISH_S + GRACE_S at most;
        a second call does nothing."""


class NoTracker:
    """tracking.wandb: off."""

    def start(self) -> None:
        pass

    def poll(self) -> list[str]:
        return []

    def close(self, exit_code: int) -> list[str]:
        return []


class WandbTracker:
    """A follower process, which ends with this one however this one ends."""

    def __init__(
        self, folder: Path, *, mode: str, project: str, entity: str | None, finish_s: float
    ) -> None:
        server = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname if mode == "online" else ""
        where = (mode, project, entity or "", server or "")
        # -P: a wandb.py, or whatever else lies in the working folder, is not what we mean.
        self._command = [sys.executable, "-P", "-m", "orchestrator.tracking.follow"]
        self._command += [str(folder), *where, str(finish_s)]
        self._limit_s = finish_s + GRACE_S
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._stopped = False  # it has said, or we have, that tracking is over

    def start(self) -> None:
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(os.environ),
                start_new_session=True,  # Ctrl-C in the terminal is for the driver alone
                bufsize=0,
            )
        except OSError as error:
            self._unread = _line(f"W&B stopped: its process cannot start: {error}; {_GOES_ON}")
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def poll(self) -> list[str]:
        gone = self._process is not None and self._process.poll() is not None  # then read the rest
        messages = self._read()
        if gone and not self._stopped:
            self._stopped = True
            assert self._process is not None
            code = self._process.returncode
            messages.append(f"W&B stopped: its process ended with {code}; {_GOES_ON}")
        return messages

    def close(self, exit_code: int) -> list[str]:
        process, messages = self._process, self.poll()
        if process is None:
            return messages
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(b"%d\n" % exit_code)
        deadline = time.monotonic() + self._limit_s
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            end_tree(process.pid)
            process.wait()
            self._stopped = True
            messages.append(f"W&B stopped: not finished after {self._limit_s:.0f} s")
        messages += self._read()
        if process.returncode != 0 and not self._stopped:
            messages.append(f"W&B stopped: its process ended with {process.returncode}")
        process.stdin.close()
        process.stdout.close()
        self._process = None
        return messages

    def _read(self) -> list[str]:
        if self._process is not None:
            assert self._process.stdout is not None
            with suppress(BlockingIOError):
                while part := os.read(self._process.stdout.fileno(), 1 << 16):
                    self._unread += part
        *lines, self._unread = self._unread.split(b"\n")
        found = [json.loads(line) for line in lines]
        self._stopped = self._stopped or any(message["stopped"] for message in found)
        return [message["text"] for message in found]


def make_tracker(tracking: TrackingSection, folder: Path) -> Tracker:
    """The tracker that a manifest asks for; orchestrator.tracking says what decides."""
    if tracking.wandb == "off":
        return NoTracker()
    given, environment = tracking.model_fields_set, os.environ
    project = None if "project" in given else environment.get("WANDB_PROJECT")
    return WandbTracker(
        folder,
        mode=tracking.wandb,
        project=project or tracking.project,
        entity=tracking.entity or environment.get("WANDB_ENTITY"),
        finish_s=FINISH_S[tracking.wandb],
    )


def _line(text: str) -> bytes:
    return json.dumps({"text": text, "stopped": True}).encode() + b"\n"


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Without the wandb-core of whoever started us, and without error reports to its makers."""
    kept = {name: value for name, value in ours.items() if name != "WANDB_SERVICE"}
    return {"WANDB_ERROR_REPORTING": "false", **kept}
