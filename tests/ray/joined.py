"""A Ray of the tests' own: runs of this process join it, and its metrics can be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import psutil
import ray

from orchestrator.cells.job import CellJob, ProducerJob
from orchestrator.ray_backend.backend import RayBackend
from orchestrator.ray_backend.janitor import VARIABLE, Janitor
from tests.e2e.runs import run_here

CPUS, MEMORY = 4, 8 * 2**30  # what is asked for: bookkeeping, nothing holds them to it
_SAMPLE = re.compile(r"ray_(mtc_\w+)\{(.*)\} (\S+)")


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Start one of one node; its address. Its processes and files are gone afterwards."""
    janitor = Janitor()
    settings = {VARIABLE: str(janitor.folder), "RAY_metrics_report_interval_ms": "300"}
    options = [
        "--head",
        "--port=0",
        "--include-dashboard=false",
        "--disable-usage-stats",
        f"--temp-dir={janitor.folder}",
        f"--num-cpus={CPUS}",
        f"--memory={MEMORY}",
        f"--object-store-memory={100 * 2**20}",
    ]
    try:
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
            env={**os.environ, **settings},
            capture_output=True,
            check=True,
        )
        yield (janitor.folder / "ray_current_cluster").read_text().strip()
    finally:
        janitor.sweep(keep=False)
    assert not janitor.folder.exists()
    assert not [p for p in psutil.process_iter(["cmdline"]) if _names(p, janitor.folder)]


def _names(process: psutil.Process, folder: Path) -> bool:
    return str(folder) in " ".join(process.info["cmdline"] or [])


class Brisk(RayBackend):
    """Has 20 answers a second from each cell, so that even a short run has many moments."""

    def start(
        self, run: str, cells: Sequence[CellJob], producers: Sequence[ProducerJob]
    ) -> list[str]:
        lines = super().start(run, cells, producers)
        self._slice_s = 0.05
        return lines


def run_joined(
    address: str, manifest: Path, root: Path, *overrides: str, kind: type[RayBackend] = RayBackend
) -> tuple[int, str]:
    """Run with the driver here and the cells on that Ray: exit code and what was printed."""
    return run_here(manifest, root, *overrides, backend=kind(address))


class Scraped:
    """What Prometheus would have read of a Ray: (name, labels) -> newest value."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def until(self, ended: Event) -> None:
        """Read again and again until that event is set, and once more."""
        address = None
        while not ended.wait(0.2):
            address = address or _metrics_address()
            if address:
                self._read(address)

    def of(self, name: str) -> list[tuple[dict[str, str], float]]:
        return [(dict(labels), value) for (n, labels), value in self.samples.items() if n == name]

    def _read(self, address: str) -> None:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        for name, labels, value in _SAMPLE.findall(text):
            pairs = frozenset(re.findall(r'(\w+)="(.*?)"', labels))
            self.samples[name, pairs] = float(value)


def _metrics_address() -> str | None:
    if not ray.is_initialized():
        return None
    node = ray.nodes()[0]
    return f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
