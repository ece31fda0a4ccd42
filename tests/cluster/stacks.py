"""What a Python process is doing, told from outside: py-spy reads its stack while it is stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# What a thread is at, if it is inside one of these: (end of the file, name of the function). What
# works comes before what waits: a producer has a thread for each.
_ACTS = {
    ("cells/cell.py", "load"): "load",
    ("exchange/producer.py", "load"): "load",
    ("mtc_core/producer.py", "_forward"): "forward",
    ("exchange/producer.py", "_publish"): "publish",
    ("mtc_core/trainer.py", "step"): "step",
    ("mtc_core/checkpoint.py", "write_checkpoint"): "checkpoint",
    ("cells/transcoder_run.py", "save_final"): "final write",
    ("mtc_core/held_out.py", "calibrate"): "held-out rows",
    ("mtc_core/held_out.py", "test"): "held-out rows",
    ("ray_backend/ray_line.py", "take"): "wait for rows",
    ("ray_backend/producer_actor.py", "_advance"): "wait for asking",
}
_PROGRAM = Path(sys.executable).parent / "py-spy"


def act_of(pid: int) -> str:
    """One of those above, or what comes nearest."""
    command = [_PROGRAM, "dump", "--nonblocking", "--json", "--pid", str(pid)]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        return "start or end"
    threads = [thread["frames"] for thread in json.loads(done.stdout)]
    frames = [frame for thread in threads for frame in thread]
    for (file, function), act in _ACTS.items():
        if any(_short(f) == function and f["filename"].endswith(file) for f in frames):
            return act
    if any(_short(f) == "_find_and_load" for f in frames):
        return "imports"
    return "nothing" if any(_is_idle(thread) for thread in threads) else "something else"


def _short(frame: dict[str, Any]) -> str:
    return frame["name"].rpartition(".")[2]  # newer Pythons know the class, too


def _is_idle(thread: list[dict[str, Any]]) -> bool:
    """Ray's main loop, with nothing that was called by it."""
    return [_short(frame) for frame in thread] == ["main_loop", "<module>"]
