"""One run of one tool: a process of its own, its tokens/s, the memory of it and all it starts, and
where its weights lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.card_memory import PeakOfCard
from benchmarks.peer_steps import our_marks, peer_marks, tokens_per_second, training_stages
from benchmarks.peer_workload import BLOCK_STEPS, Run, Workload
from benchmarks.peers_environment import peers_variables
from benchmarks.process_memory import PeakMemory
from orchestrator.registry.progress import read_progress

COMMAND = str(Path(sys.executable).with_name("mtc-orchestrate"))
OURS, SPARSIFY, SAELENS = "ours", "sparsify", "saelens"


class RunFailed(Exception):
    """A tool ended with an error."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """facts: what the tool says of itself. weights: its folder of trained coders. peak_card_bytes:
    of the GPU's memory, where it trained on one and its driver tells."""

    run: Run
    tokens_per_second: float
    peak_pss_bytes: int
    peak_card_bytes: int | None = None
    processes_at_peak: Mapping[str, int]
    wall_s: float
    rows: int
    weights: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "run": vars(self.run), "weights": str(self.weights)}


def run_tool(run: Run, workload: Workload, folder: Path, python: Path | None) -> Outcome:
    """folder: a new one, for all that it writes. python: of the peers. Raises RunFailed."""
    folder.mkdir(parents=True)
    if run.tool == OURS:
        return _run_ours(run, workload, folder)
    assert python is not None
    return _run_peer(run, workload, folder, python)


def _run_ours(run: Run, workload: Workload, folder: Path) -> Outcome:
    """The whole product, by its command, with its defaults: Ray and its dashboard, metrics,
    checkpoints, calibration, splicing, report."""
    manifest = folder / "manifest.yaml"
    manifest.write_text(yaml.safe_dump(workload.manifest("ours", run)))
    set_here = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    variables = {key: value for key, value in os.environ.items() if key not in set_here}
    command = [COMMAND, "run", str(manifest), "--root", str(folder)]
    took = _measured(command, folder, variables, run.device)
    place = folder / "ours"
    lines = read_progress(place, 1)
    marks, ended = our_marks(lines, workload.batch_tokens, BLOCK_STEPS)
    end = json.loads((place / "invocations" / "0001.end.json").read_text())
    return Outcome(
        run=run,
        tokens_per_second=tokens_per_second(marks, ended, run.warmup),
        **took,
        rows=end["rows_trained"],
        weights=place,
        facts={
            "first_step_s": end["first_step_s"],
            "stages_s": training_stages(end),
            "marks": [(mark.step, mark.at) for mark in marks],
            "ended": ended,
        },
    )


def _run_peer(run: Run, workload: Workload, folder: Path, python: Path) -> Outcome:
    program = Path(__file__).with_name(f"peer_{run.tool}.py")
    given = workload.given(run, folder / "out")
    (folder / "workload.json").write_text(json.dumps(given))
    # -I: neither our packages nor those of the user
    command = [str(python), "-I", str(program), str(folder / "workload.json")]
    variables = peers_variables(folder, run.threads, run.device)
    took = _measured(command, folder, variables, run.device)
    marks, ended, facts = peer_marks((folder / "stdout").read_text().splitlines())
    return Outcome(
        run=run,
        tokens_per_second=tokens_per_second(marks, ended, run.warmup),
        **took,
        rows=marks[-1].rows,
        weights=folder / "out",
        facts=facts | {"marks": [(mark.step, mark.at) for mark in marks], "ended": ended},
    )


def _measured(
    command: list[str], folder: Path, variables: Mapping[str, str], device: str
) -> dict[str, Any]:
    """Run a command in a folder, in which its output stays; its memory, and seconds of it all, as
    fields of an Outcome. Raises RunFailed."""
    began = time.monotonic()
    with (
        open(folder / "stdout", "w") as out,
        open(folder / "stderr", "w") as errors,
        subprocess.Popen(
            command, cwd=folder, env=variables, stdout=out, stderr=errors, stdin=subprocess.DEVNULL
        ) as process,
        PeakMemory(process.pid) as memory,
        PeakOfCard(device) as card,
    ):
        code = process.wait()
    if code:
        said = "".join((folder / name).read_text()[-2000:] for name in ("stdout", "stderr"))
        raise RunFailed(f"{' '.join(command)} failed with exit code {code}:\n{said}")
    return {
        "peak_pss_bytes": memory.peak_bytes,
        "processes_at_peak": memory.at_peak,
        "peak_card_bytes": card.peak_bytes,
        "wall_s": time.monotonic() - began,
    }
