"""Runs of the tiny model as a user starts them: a process of its own, what it prints, its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import with_token

LIMIT_S = 120.0
# Weights that no machine can hold, for a plan that is told of more memory than there is; and what
# torch's own error comes to.
TOO_LARGE = "  - {source: 0.resid_mid, target: 0.mlp_out, group_sizes: [8, 8, 4294967280]}"
VAST = {"free_bytes": 2**50}
OUT_OF_MEMORY = (
    rf"trainer-0\[L00\]: out of memory on \S+ \(asked for {2**32 * 32 * 4 / 1e9:.1f} GB more\); "
    r"give fewer transcoders to a device \(resources.cells\), .*in a new run, lower model.*"
    "\n"
)
_started: list[subprocess.Popen] = []


class Started:
    """A run that is on its way. The environment knows the token only if it is given here."""

    def __init__(
        self,
        manifest: Path,
        root: Path,
        *options: str,
        token: str | None = None,
        env: Mapping[str, str] = {},
        before: Sequence[str] = (),
        altered: Mapping[str, Any] | None = None,
    ) -> None:
        """altered: what is otherwise than in reality; see altered.py."""
        program = ["-m", "tests.cluster.altered", repr(dict(altered or {}))]
        self.process = subprocess.Popen(
            [*before, sys.executable, *program, "run", manifest, "--root", root, *options],
            env=with_token(token, env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _started.append(self.process)

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> Ended:
        out, err = self.process.communicate(timeout=LIMIT_S)
        return Ended(self.process.returncode, out, err)


class Ended:
    """Exit code (minus a signal), and what was printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    @property
    def clean(self) -> bool:
        """Whether nobody but us has spoken: no traceback, no paragraph and no log line of Ray."""
        marks = r"Traceback|\(raylet\)|\(pid=|^\[20\d\d-|^20\d\d-.*(WARNING|ERROR|INFO)|\x1b\["
        return not re.search(marks, self.out + self.err, re.MULTILINE)


def run(*args, **options) -> Ended:
    """The same, from its beginning to its end."""
    return Started(*args, **options).end()


def privately(command: tuple[str, ...]) -> tuple[str, ...]:
    """A command that runs another one in a namespace of its own; skips a test that may not."""
    try:
        done = subprocess.run((*command, "true"), capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode:
        pytest.skip("this user may not have namespaces")
    return command


def hiding(folder: Path, mount: str = "mount -t tmpfs") -> tuple[str, ...]:
    """The same, for a process that sees the folder empty."""
    script = f'{mount} none {folder} && exec "$@"'
    return privately(("unshare", "--mount", "sh", "-c", script, "sh"))


def end_all() -> None:
    """What a test that failed has left running."""
    while _started:
        process = _started.pop()
        process.kill()
        process.communicate()
