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
    if (threads := _threads(pid)) is None:
        return "start or end"
    found = _places(threads)
    for place, act in _ACTS.items():
        if _holds(found, place):
            return act
    if any(function == "_find_and_load" for _, function in found):
        return "imports"
    return "nothing" if any(_is_idle(thread) for thread in threads) else "something else"


def is_inside(pid: int, file: str, function: str) -> bool:
    """Whether any thread is in that function of a file whose path ends so."""
    return _holds(_places(_threads(pid) or []), (file, function))


def _threads(pid: int) -> list[list[dict[str, Any]]] | None:
    """Of each thread its frames; None of what cannot be read (yet, or any more)."""
    command = [_PROGRAM, "dump", "--nonblocking", "--json", "--pid", str(pid)]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        return None
    return [thread["frames"] for thread in json.loads(done.stdout)]


def _places(threads: list[list[dict[str, Any]]]) -> set[tuple[str, str]]:
    return {(frame["filename"], _short(frame)) for thread in threads for frame in thread}


def _holds(places: set[tuple[str, str]], place: tuple[str, str]) -> bool:
    return any(name == place[1] and file.endswith(place[0]) for file, name in places)


def _short(frame: dict[str, Any]) -> str:
    return frame["name"].rpartition(".")[2]  # newer Pythons know the class, too


def _is_idle(thread: list[dict[str, Any]]) -> bool:
    """Ray's main loop, with nothing that was called by it."""
    return [_short(frame) for frame in thread] == ["main_loop", "<module>"]
