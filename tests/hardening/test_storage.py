"""Files that a disk or a copy has spoilt: told, passed over, made anew; never taken for good."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mtc_core.checkpoint import checkpoint_paths, read_latest
from orchestrator.cli import cli
from tests.cluster.runs import privately
from tests.e2e.runs import run_here, write_manifest
from tests.hardening.conftest import Tally, share

pytestmark = pytest.mark.hardening
TRIES = share(500)  # a tenth of them in continuous integration


def harm(draw: random.Random, path: Path) -> str:
    """Spoil a file in a way that leaves other bytes; what was done."""
    whole = path.read_bytes()
    data = bytearray(whole)
    match draw.randrange(6):
        case 0:
            place = draw.randrange(len(data))
            data[place] ^= 1 << draw.randrange(8)
            done = f"a bit of byte {place} flipped"
        case 1:
            data = data[: draw.randrange(len(data))]
            done = f"cut to {len(data)} bytes"
        case 2:
            first = draw.randrange(len(data))
            data[first : first + 4096] = bytes(len(data[first : first + 4096]))
            done = f"zeros from byte {first}"
        case 3:
            data += draw.randbytes(draw.randrange(1, 99))
            done = "longer"
        case 4:
            data = bytearray(draw.randbytes(len(data)))
            done = "random"
        case _:
            path.unlink()
            return f"{path.name} deleted"
    if bytes(data) == whole:
        data += b"x"
    path.write_bytes(bytes(data))
    return f"{path.name}: {done}"


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints of each transcoder."""
    folder = tmp_path_factory.mktemp("trained")
    code, printed = run_here(write_manifest(folder, model), folder)
    assert code == 0, printed
    return folder / "small"


def test_checkpoints(trained: Path, tmp_path: Path, tally: Tally) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    source = next((trained / "transcoders").iterdir()) / "checkpoints"
    older, newer = checkpoint_paths(source)
    wanted = read_latest(source)[0]
    assert wanted is not None and wanted.path == newer
    before = torch.load  # nothing of a checkpoint is unpickled
    torch.load = None  # type: ignore[assignment]
    try:
        for number in range(TRIES):
            folder = tmp_path / str(number)
            shutil.copytree(source, folder)
            spoilt = draw.choice(sorted((folder / newer.name).iterdir()))
            done = harm(draw, spoilt)
            found, complaints = read_latest(folder)
            used = found.path.name if found else None
            told = complaints[0] if complaints else ""
            right = used == older.name and newer.name in told
            tally.add(right, f"seed {seed}, {done}: used {used}, {told}" if not right else told)
            shutil.rmtree(folder)
    finally:
        torch.load = before


def test_saved_transcoders(trained: Path, tmp_path: Path, tally: Tally) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    run = tmp_path / "small"
    shutil.copytree(trained, run)
    finals = sorted((run / "transcoders").glob("*/final"))
    for _ in range(share(100)):
        spoilt = draw.choice(sorted(draw.choice(finals).iterdir()))
        whole = spoilt.read_bytes()
        done = harm(draw, spoilt)
        ended = CliRunner().invoke(cli, ["registry", "verify", str(run)])
        told = ended.output
        clean = ended.exception is None or isinstance(ended.exception, SystemExit)
        right = ended.exit_code != 0 and clean and spoilt.parent.parent.name in told
        tally.add(
            right, f"seed {seed}, {done}: exit {ended.exit_code}, {told}" if not right else told
        )
        spoilt.write_bytes(whole)
    ended = CliRunner().invoke(cli, ["registry", "verify", str(run)])
    assert ended.exit_code == 0, ended.output


def test_the_index(trained: Path, tmp_path: Path, tally: Tally) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    run = tmp_path / "small"
    shutil.copytree(trained, run)
    index = run / "index.sqlite"

    def shown() -> str:
        ended = CliRunner().invoke(cli, ["metrics", str(run), "--json"])
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    wanted = shown()
    assert len(wanted) > 500
    for _ in range(share(100)):
        done = harm(draw, index) if index.exists() else "there was none"
        ended = CliRunner().invoke(cli, ["metrics", str(run), "--json"])
        right = ended.exit_code == 0 and ended.stdout == wanted
        tally.add(
            right,
            f"seed {seed}, {done}: exit {ended.exit_code}, {ended.output[-300:]}"
            if not right
            else done,
        )


READERS = (
    "status {run}",
    "metrics {run}",
    "list --root {root}",
    "best --root {root}",
    "compare {run} --root {root}",
    "registry verify {run}",
    "plan {manifest} --root {root}",
    "report {run} --out {elsewhere}/report.html",
    "export {run} --format saelens --out {elsewhere}/exported",
)
WRITERS = (
    "run {manifest} --root {root} --backend local --set name=other",
    "run {manifest} --root {root} --backend local --set train.log_every_steps=6",
    "run {manifest} --root {root}",
    "report {run}",
    "eval {run} --tokens 64",
    "features {run} --tokens 512",
    "registry rebuild {run}",
    "registry gc --root {root} --yes",
)


def test_a_read_only_root(trained: Path, tmp_path: Path, tally: Tally) -> None:
    """A real mount. What is done can be looked at, and nothing more."""
    root = trained.parent
    mount = f'mount --bind {root} {root} && mount -o remount,ro,bind {root} && exec "$@"'
    before = privately(("unshare", "--mount", "sh", "-c", mount, "sh"))
    unfinished = next((trained / "transcoders").iterdir()) / "final"
    for command in (*READERS, *WRITERS):
        if command == WRITERS[0]:
            unfinished.rename(tmp_path / "final")
        values = {"manifest": root / "small.yaml", "root": root, "run": trained}
        words = command.format(**values, elsewhere=tmp_path).split()
        program = [*before, sys.executable, "-c", "from orchestrator.cli import main; main()"]
        ended = subprocess.run([*program, *words], capture_output=True, text=True)
        printed = ended.stdout + ended.stderr
        refused = ended.returncode in (1, 2) and "Read-only file system" in printed
        right = ended.returncode == 0 if command in READERS else refused
        right = right and "Traceback" not in printed
        told = ended.stderr if command in WRITERS else ""
        tally.add(right, told if right else f"{words}: exit {ended.returncode}, {printed}")
    (tmp_path / "final").rename(unfinished)
