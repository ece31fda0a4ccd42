"""One invocation of `run`, from manifest to summary. It alone decides; everything else reports.

manifest -> run lock -> plan -> run folder -> tokens -> cells -> summary
"""

from __future__ import annotations

import logging
import signal
from threading import Event

from rich.console import Console

from mtc_core.errors import MtcError
from orchestrator.backend import Backend
from orchestrator.interrupts import Interrupt, Interrupted, interrupts
from orchestrator.manifest import load_manifest
from orchestrator.prepare import OpenRun, Request, cell_jobs, open_run, write_tokens
from orchestrator.run_folder import RunFolder
from orchestrator.run_lock import LockLost, run_lock
from orchestrator.run_log import PhaseLog, log_start, log_to
from orchestrator.status import CellStatus
from orchestrator.status_file import StatusFile
from orchestrator.summary import cost_lines, read_ended, show_summary
from orchestrator.view import View, make_view

DONE, SOME_FAILED, STOPPED = 0, 1, 3
log = logging.getLogger("mtc")


def run(request: Request, backend: Backend, console: Console) -> int:
    """Train a manifest to its end, or go on where an earlier invocation stopped: an exit code.

    Raises MtcError for what the user can mend."""
    manifest = load_manifest(request.manifest, request.overrides)
    folder = RunFolder(request.root, manifest.name)
    with run_lock(folder.path) as lost:
        opened = open_run(request.root, manifest, folder)
        with log_to(folder.log), interrupts() as interrupt:
            log_start(request.manifest, request.overrides, opened.threads, opened.plan.device)
            for note in opened.notes:
                log.info("%s", note)
            code = _train_and_report(opened, backend, interrupt, lost, console)
            log.info("end: exit code %d", code)
    return code


def _train_and_report(
    run: OpenRun, backend: Backend, interrupt: Interrupt, lost: Event, console: Console
) -> int:
    try:
        last = _train(run, backend, interrupt, lost, console)
    except Interrupted:
        log.info("interrupted by %s", signal.Signals(interrupt.signal_number).name)
        console.print("interrupted: everything is saved; the same command continues the run")
        return interrupt.exit_code
    except MtcError as error:
        log.error("%s", error)
        raise
    except Exception as error:
        log.exception("stopped by an error")
        console.print(f"stopped: {type(error).__name__}: {error}", soft_wrap=True)
        console.print(f"traceback in {run.folder.log}; the same command continues the run")
        return STOPPED
    return _report(run, last, console)


def _train(
    run: OpenRun, backend: Backend, interrupt: Interrupt, lost: Event, console: Console
) -> CellStatus | None:
    """Bring every transcoder to its end; the last status, or None if there was nothing to do."""
    unfinished = run.unfinished
    if not unfinished:
        return None
    todo = f"{len(unfinished)} of {len(run.ids)} transcoders to train"
    console.print(f"{run.folder.path}: {todo}")
    log.info("%s", todo)
    view = make_view(console, run.plan.schedule.steps)
    file = StatusFile(run.folder.path, run.plan.schedule.steps)
    phases = PhaseLog()

    def reading(tokens: int, doing: str) -> None:
        interrupt.check()
        view.reading(tokens, doing)

    try:
        phases.update("tokens")
        schedule = write_tokens(run, reading).schedule
        if schedule.reading:
            view.note(schedule.reading)
            log.info("%s", schedule.reading)
        backend.start(cell_jobs(run))
        last = None
        while (status := backend.wait()) is not None:
            if lost.is_set():  # without a checkpoint: the folder is another's now
                raise LockLost("another driver has taken this run over after a long silence here")
            last = status
            _tell(status, view)
            phases.update(status.phase, status.step)
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
    rows = read_ended(run.folder, run.ids)
    costs = cost_lines(last, len(rows)) if last else []
    for line in costs or ["nothing left to train"]:
        log.info("%s", line)
    if last is None:
        console.print(f"{run.folder.path}: nothing left to train")
    show_summary(console, rows, costs, run.folder)
    return SOME_FAILED if any(row.failure for row in rows) else DONE
