"""Small real runs: a random-weights model with its tokenizer, the text every Python ships."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from orchestrator.backend import Backend

MANIFEST = """\
name: {name}
model: {{name: {model}}}
data: {{path: python-docs, context_tokens: 32, holdout_tokens: {holdout_tokens}}}
train: {{tokens: {tokens}, batch_tokens: 256, block_batches: 4, lr: 1e-3, log_every_steps: 5}}
defaults: {{group_sizes: [8, 8, 16], k: 4}}
transcoders:
{transcoders}
resources: {{threads: {threads}, device: cpu, checkpoint_minutes: {checkpoint_minutes}}}
"""
TWO_PAIRS = """\
  - {layers: 0-1, source: resid_mid, target: mlp_out}
  - {source: 0.resid_post, target: 2.resid_mid, k: [4, 6]}"""


def write_manifest(folder: Path, model: Path, **changes) -> Path:
    values = {
        "name": "small",
        "tokens": 256 * 40,
        "transcoders": TWO_PAIRS,
        "checkpoint_minutes": 0.001,
        "threads": 1,
        "holdout_tokens": 2048,
        **changes,
    }
    path = folder / f"{values['name']}.yaml"
    path.write_text(MANIFEST.format(model=model, **values))
    return path


def run_here(
    manifest: Path, root: Path, *overrides: str, backend: Backend | None = None
) -> tuple[int, str]:
    """Run with the driver in this process, and the cells too unless another backend is given: exit
    code and what was printed."""
    from orchestrator.driver import run
    from orchestrator.local_backend import LocalBackend
    from orchestrator.prepare import Request

    out = io.StringIO()
    console = Console(file=out, width=160)
    request = Request(manifest, root, overrides)
    return run(request, backend or LocalBackend(), console), out.getvalue()


def uninterrupted(folder: Path, model: Path, **changes) -> tuple[Path, Path, str]:
    """A run that nothing interrupts, to compare with: manifest, run folder, what it printed."""
    manifest = write_manifest(folder, model, **changes)
    code, printed = run_here(manifest, folder)
    assert code == 0, printed
    return manifest, folder / "small", printed


def run_in_child(manifest: Path, root: Path, sabotage=None, *overrides: str) -> int:
    """Run in a process of its own: its exit code, or minus the signal that ended it.

    A fork server has imported everything already, so that a child costs milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.e2e.preload"])
    child = context.Process(target=_child, args=(manifest, root, sabotage, overrides))
    child.start()
    child.join(120)
    assert child.exitcode is not None, "the run hangs"
    return child.exitcode


def _child(manifest: Path, root: Path, sabotage, overrides: tuple[str, ...]) -> None:
    if sabotage:
        sabotage.plant()
    os._exit(run_here(manifest, root, *overrides)[0])


class SignalAfter:
    """Sends a signal `delay_s` after the nth training step was reported: anywhere in a step, a
    forward, or a checkpoint."""

    def __init__(self, step: int, delay_s: float, number: int = signal.SIGKILL) -> None:
        self.step, self.delay_s, self.number = step, delay_s, number

    def plant(self) -> None:
        from orchestrator.local_backend import LocalBackend

        wait, seen = LocalBackend.wait, [0]

        def wait_and_count(backend):
            events = wait(backend)
            if events and getattr(events[0], "phase", "") == "training":  # of a cell
                seen[0] += 1
                if seen[0] == self.step:
                    threading.Timer(self.delay_s, os.kill, (os.getpid(), self.number)).start()
            return events

        LocalBackend.wait = wait_and_count


class KillInCheckpoint:
    """Kills the process inside its nth checkpoint write: tensors are there, digests are not."""

    def __init__(self, n: int) -> None:
        self.n = n

    def plant(self) -> None:
        from mtc_core import checkpoint

        write, seen = checkpoint.write_json_atomic, [0]

        def write_or_die(path, value):
            seen[0] += path.name == checkpoint.DIGESTS
            if seen[0] == self.n and path.name == checkpoint.DIGESTS:
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, value)

        checkpoint.write_json_atomic = write_or_die


def finals(run: Path) -> dict[str, bytes]:
    """Every file of every final/ folder, and the metrics, by id and name."""
    files = [*run.glob("transcoders/*/final/*"), *run.glob("transcoders/*/metrics.jsonl")]
    return {str(path.relative_to(run / "transcoders")): path.read_bytes() for path in files}
