"""One invocation of `run`, from manifest to summary. It alone decides; everything else reports.

manifest -> plan -> run folder -> tokens -> cells -> summary
"""

from __future__ import annotations

import logging

from rich.console import Console

from mtc_core.errors import MtcError
from orchestrator.backend import Backend
from orchestrator.interrupts import Interrupt, Interrupted, interrupts
from orchestrator.prepare import OpenRun, Request, cell_jobs, open_run, write_tokens
from orchestrator.run_log import log_to
from orchestrator.status import CellStatus
from orchestrator.status_file import StatusFile
from orchestrator.summary import read_ended, show_summary
from orchestrator.view import View, make_view

DONE, SOME_FAILED, STOPPED = 0, 1, 3
log = logging.getLogger("mtc")


def run(request: Request, backend: Backend, console: Console) -> int:
    """Train a manifest to its end, or go on where an earlier invocation stopped: an exit code.

    Raises MtcError for what the user can mend."""
    opened = open_run(request)
    with log_to(opened.folder.log), interrupts() as interrupt:
        for change in opened.changes:
            log.info("changed since the run began: %s", change)
        try:
            last = _train(opened, backend, interrupt, console)
        except Interrupted:
            console.print("interrupted: everything is saved; the same command continues the run")
            return interrupt.exit_code
        except MtcError as error:
            log.error("%s", error)
            raise
        except Exception as error:
            log.exception("stopped by an error")
            console.print(f"stopped: {type(error).__name__}: {error}", soft_wrap=True)
            console.print(f"traceback in {opened.folder.log}; the same command continues the run")
            return STOPPED
    return _report(opened, last, console)


def _train(
    run: OpenRun, backend: Backend, interrupt: Interrupt, console: Console
) -> CellStatus | None:
    """Bring every transcoder to its end; the last status, or None if there was nothing to do."""
    if not run.unfinished:
        return None
    todo = f"{len(run.unfinished)} of {len(run.ids)} transcoders to train"
    console.print(f"{run.folder.path}: {todo}")
    view = make_view(console, run.plan.schedule.steps)
    file = StatusFile(run.folder.path, run.plan.schedule.steps)

    def reading(tokens: int, doing: str) -> None:
        interrupt.check()
        view.reading(tokens, doing)

    try:
        schedule = write_tokens(run, reading).schedule
        if schedule.passes is not None:
            view.note(f"{schedule.passes:.1f} passes over {schedule.stored_rows:,} rows of text")
        backend.start(cell_jobs(run))
        last = None
        while (status := backend.wait()) is not None:
            last = status
            _tell(status, view)
            file.update(status)
            if interrupt:
                backend.stop()
                interrupt.check()
        file.close("done")
        return last
    finally:
        view.close()
        file.close("stopped")


def _tell(status: CellStatus, view: View) -> None:
    for message in status.messages:
        log.warning("%s", message)
        view.note(message)
    view.show(status)


def _report(run: OpenRun, last: CellStatus | None, console: Console) -> int:
    if last is None:
        console.print(f"{run.folder.path}: nothing left to train")
    rows = read_ended(run.folder, run.ids)
    show_summary(console, rows, last, run.folder)
    return SOME_FAILED if any(row.failure for row in rows) else DONE
