"""`report.html` at the end of `run`, and anew where figures change. Whatever goes wrong here, the
run is done and saved: it is told, and fails nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mtc_core.atomic import write_bytes_atomic
from mtc_core.errors import MtcError
from orchestrator.run_folder.disk_errors import disk_errors
from orchestrator.run_folder.folder import RunFolder
from orchestrator.run_folder.log import log_to

log = logging.getLogger("mtc")


def report_at_the_end(run: RunFolder, console: Console) -> None:
    """Write the page, and say where it is."""
    try:
        write_report(run.path, run.report)
    except MtcError as error:
        said = f"no report: {error}"
    except Exception as error:
        log.exception("there is no report")
        said = f"no report: {type(error).__name__}: {error}; traceback in {run.log}"
    else:
        said = f"report: {run.report}"
    log.info("%s", said)
    console.print(said, soft_wrap=True)


def renew_report(run: RunFolder, console: Console) -> None:
    """Where there is one, and its figures have changed: by a command that is not `run`."""
    if not run.report.exists():
        return
    try:
        with log_to(run.log):
            report_at_the_end(run, console)
    except MtcError as error:  # somebody else's run
        console.print(f"no report: {error}", soft_wrap=True)


def write_report(run: Path, out: Path) -> None:
    """The report of one run, as a file. Raises MtcError."""
    from orchestrator.reporting.gather import gather
    from orchestrator.reporting.page import report

    write_page(out, report(gather(run), out.parent))


def write_comparison(runs: Sequence[Path], out: Path) -> None:
    """The page of several. Raises MtcError."""
    from orchestrator.reporting.comparing import compare
    from orchestrator.reporting.gather import gather

    write_page(out, compare([gather(run) for run in runs]))


def write_page(out: Path, text: str) -> None:
    """Raises ConfigError where the disk refuses."""
    with disk_errors(out, "written"):
        write_bytes_atomic(out, text.encode(errors="replace"))  # of a path that is no UTF-8
