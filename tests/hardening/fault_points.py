"""A small run, broken at each call that changes the disk, and continued: what came of it.

    LD_PRELOAD=faults.so python -m tests.hardening.fault_points MODEL FOLDER MODE SHARE

Leaves a line of JSON a try, see `results`. SHARE: of the points, drawn at random, 1 for all. Every
try is a process of its own, forked from this one, which has made a run before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from tests.e2e import preload, runs

__all__ = ["preload"]
MODES = {"count": 0, "kill": 1, "tear": 2, "fill": 3, "read-only": 4}
WRITES = ("write",)
ONE = "  - {layers: 0, source: resid_mid, target: mlp_out}"
WORKERS = 2
RESULTS = ".results.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("mode", choices=[name for name in MODES if name != "count"])
    parser.add_argument("share", type=float)
    args = parser.parse_args()
    (args.folder / "wanted").mkdir()
    manifest = runs.write_manifest(
        args.folder, args.model, transcoders=ONE, tokens=256 * 6, checkpoint_minutes=1e-6
    )
    text = args.folder / "text.jsonl"  # a short one: most of a try would go into reading
    text.write_text(
        "".join(json.dumps({"text": topics[name]}) + "\n" for name in sorted(topics)[:40])
    )
    manifest.write_text(manifest.read_text().replace("python-docs", str(text)))
    # Here, so that what it loads and compiles is there for all that are forked from here.
    assert command(manifest, args.folder / "warm", lambda: None) == 0
    calls = counted(manifest, args.folder)
    wanted = runs.finals(args.folder / "wanted" / "small")
    points = [
        (n, call)
        for n, call in enumerate(calls, 1)
        if args.mode != "tear" or call.startswith(WRITES)
    ]
    drawn = random.sample(points, max(1, round(args.share * len(points))))
    children = []
    for worker in range(WORKERS):
        if not (pid := os.fork()):
            work(
                args.folder / f"worker-{worker}",
                manifest,
                args.mode,
                drawn[worker::WORKERS],
                wanted,
            )
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0, "a worker has failed"


def work(
    own: Path, manifest: Path, mode: str, points: list[tuple[int, str]], wanted: dict[str, bytes]
) -> None:
    own.mkdir()
    if mode == "fill":  # a disk of its own: we have a namespace of our own
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", own], check=True)
    with open(own.parent / f"{own.name}{RESULTS}", "w", encoding="utf-8") as results:
        for n, call in points:
            result = tried(manifest, own / str(n), mode, n, wanted)
            results.write(json.dumps({"n": n, "call": call, **result}) + "\n")


def counted(manifest: Path, folder: Path) -> list[str]:
    """The calls of a whole run in which nothing goes wrong."""
    with open(folder / "calls.txt", "wb") as listed:
        root = folder / "wanted"
        code, printed = in_child(manifest, root, lambda: arm(root, 0, "count", listed.fileno()))
    assert code == 0, printed
    return (folder / "calls.txt").read_text().splitlines()


def tried(
    manifest: Path, root: Path, mode: str, n: int, wanted: dict[str, bytes]
) -> dict[str, Any]:
    root.mkdir()
    code, printed = in_child(manifest, root, lambda: arm(root, n, mode))
    ballast(root).unlink(missing_ok=True)
    again, printed_again = in_child(manifest, root, lambda: None)
    found = {
        "code": code,
        "printed": printed,
        "again": again,
        "printed_again": printed_again if again else "",
        "same_bits": runs.finals(root / "small") == wanted,
    }
    shutil.rmtree(root)
    return found


def ballast(root: Path) -> Path:
    return root.parent / f"{root.name}.ballast"


def arm(root: Path, n: int, mode: str, listed: int = -1) -> None:
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    places = (os.fsencode(f"{root}/"), os.fsencode(ballast(root)))
    library.mtc_fault(*places, ctypes.c_long(n), MODES[mode], listed)


def in_child(manifest: Path, root: Path, before: Callable[[], None]) -> tuple[int, str]:
    """Exit code, or minus a signal, of `mtc-orchestrate run`, and what it printed."""
    with tempfile.TemporaryFile("w+", dir="/tmp") as printed:
        if not (pid := os.fork()):
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            os._exit(command(manifest, root, before))
        _, status = os.waitpid(pid, 0)
        printed.seek(0)
        return os.waitstatus_to_exitcode(status), printed.read()


def command(manifest: Path, root: Path, before: Callable[[], None]) -> int:
    from orchestrator.cli import main

    sys.argv = ["mtc-orchestrate", "run", str(manifest), "--root", str(root), "--backend", "local"]
    before()
    try:
        main()
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def results(folder: Path) -> list[dict[str, Any]]:
    lines = [line for path in folder.glob(f"*{RESULTS}") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
