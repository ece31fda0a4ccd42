"""One invocation of `run`, from manifest to summary. It alone decides; everything else reports.

manifest -> run lock -> plan -> run folder -> tokens, while cells load -> training -> summary
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event as Flag

from rich.console import Console

from mtc_core.errors import MtcError, ReadingStopped
from orchestrator.audience import Audience
from orchestrator.backend import Backend
from orchestrator.cells.status import CellLost, Notice
from orchestrator.evaluating.at_the_end import splice_at_the_end
from orchestrator.failures import FailurePolicy, GiveUp, Stopped
from orchestrator.interrupts import Interrupt, Interrupted, interrupts
from orchestrator.jobs import cell_jobs, producer_jobs
from orchestrator.manifest import load_manifest
from orchestrator.planning.preflight import space_missing
from orchestrator.prepare import OpenRun, Request, open_run, write_tokens
from orchestrator.reporting.at_the_end import report_at_the_end
from orchestrator.run_folder.disk_errors import elsewhere, out_of_space, unwritable
from orchestrator.run_folder.folder import RunFolder
from orchestrator.run_folder.links import refuse_links_out
from orchestrator.run_folder.lock import LockLost, run_lock
from orchestrator.run_folder.log import log_start, log_to
from orchestrator.status_file import mark_done
from orchestrator.summary import show_end

DONE, SOME_FAILED, STOPPED, USER_ERROR = 0, 1, 3, 2
log = logging.getLogger("mtc")


def run(request: Request, backend: Backend, console: Console) -> int:
    """Train a manifest to its end, or go on where an earlier invocation stopped: an exit code.

    Raises MtcError for what the user can mend."""
    return run_in_folder(request, backend, console)[0]


def run_in_folder(request: Request, backend: Backend, console: Console) -> tuple[int, RunFolder]:
    """The same, with the run folder."""
    manifest = load_manifest(request.manifest, request.overrides)
    folder = RunFolder(request.root, manifest.name)
    refuse_links_out(folder.path)
    with run_lock(folder.path) as lost, _closed_at_last(backend):
        opened = open_run(request.root, manifest, folder, backend.inventory)
        with log_to(folder.log), interrupts() as interrupt:
            plan = opened.plan
            log_start(request.manifest, request.overrides, plan.threads, plan.device)
            for note in opened.notes:
                log.info("%s", note)
                console.print(note, soft_wrap=True)
            if opened.unfinished:
                audience = Audience(opened, request, backend.name, console)
                code = _train_and_report(opened, backend, audience, interrupt, lost, console)
            else:
                log.info("nothing left to train")
                console.print(f"{folder.path}: nothing left to train")
                code = _show_finished(opened, console, interrupt, lost)
            if code in (DONE, SOME_FAILED):
                report_at_the_end(folder, console)
            log.info("end: exit code %d", code)
    return code, folder


def _train_and_report(
    run: OpenRun,
    backend: Backend,
    audience: Audience,
    interrupt: Interrupt,
    lost: Flag,
    console: Console,
) -> int:
    code = STOPPED
    try:
        with audience:
            _train(run, backend, audience, interrupt, lost)
        costs = audience.costs()
        backend.close(clean=True)  # its processes hold the model, which we need next
        check = partial(_check, interrupt, lost)
        tell = audience.measuring
        splice_at_the_end(run.folder, run.manifest, console, audience.say, check, tell)
        for line in costs:
            log.info("%s", line)
        code = _exit_code(show_end(console, run.folder, run.ids, costs))
    except Interrupted as end:
        code = interrupt.exit_code
        log.info("interrupted by %s: %s", signal.Signals(interrupt.signal_number).name, end)
        console.print(f"interrupted: {end}; the same command continues the run", soft_wrap=True)
    except (Stopped, LockLost, ReadingStopped) as error:
        log.error("%s", error)
        console.print(f"stopped: {error}; the same command continues the run", soft_wrap=True)
    except MtcError as error:
        code = USER_ERROR
        log.error("%s", error)
        raise
    except Exception as error:
        log.exception("stopped by an error")
        disk = _of_disk(error, run)
        console.print(f"stopped: {disk or f'{type(error).__name__}: {error}'}", soft_wrap=True)
        last = "the same command continues the run"
        console.print(last if disk else f"traceback in {run.folder.log}; {last}", soft_wrap=True)
    finally:
        backend.close(clean=code != STOPPED)
        audience.leave(code)
    return code


def _of_disk(error: Exception, run: OpenRun) -> str:
    """What to do about an error of the disk; empty for all others."""
    folder = run.folder.path.absolute()
    other = elsewhere(error, folder)
    if out_of_space(error):
        if other:
            return f"the disk of {other} is full, free space there"
        return space_missing(run.plan, run.folder.path)
    if reason := unwritable(error):
        return f"the disk of {other or run.folder.path} takes nothing any more ({reason})"
    return ""


def _show_finished(run: OpenRun, console: Console, interrupt: Interrupt, lost: Flag) -> int:
    """A run with nothing left to train may have something left to measure."""

    def say(text: str) -> None:
        log.info("%s", text)
        console.print(text, soft_wrap=True)

    try:
        check = partial(_check, interrupt, lost)
        splice_at_the_end(run.folder, run.manifest, console, say, check)
    except Interrupted:
        console.print("interrupted; the same command goes on where it was")
        return interrupt.exit_code
    except LockLost as error:
        say(f"stopped: {error}")
        return STOPPED
    mark_done(run.folder.path)
    return _exit_code(show_end(console, run.folder, run.ids, costs=[]))


def _train(
    run: OpenRun, backend: Backend, audience: Audience, interrupt: Interrupt, lost: Flag
) -> None:
    """Bring every transcoder to its end. Whatever stops it, what cells have done is saved."""

    check = partial(_check, interrupt, lost)
    died: list[str] = []  # cells, of what ends us too: nobody replaces them, or had them save

    def reading(tokens: int, doing: str) -> None:
        check()
        backend.check()
        audience.reading(tokens, doing)

    audience.say(f"{run.folder.path}: {len(run.unfinished)} of {len(run.ids)} transcoders to train")
    for note in run.plan.notes:
        audience.say(note)
    try:
        cells = cell_jobs(run, audience.witness)
        producers = producer_jobs(run, cells, audience.witness)
        for line in backend.start(run.manifest.name, cells, producers):
            audience.say(line)
        check()
        if said := write_tokens(run, reading, not backend.trains_here).schedule.reading:
            audience.say(said)
        policy = FailurePolicy()
        while (events := backend.wait()) is not None:
            for event in events:
                if isinstance(event, Notice):
                    audience.warn(event.text)
                elif not isinstance(event, CellLost):
                    audience.hear(event)
                elif interrupt:  # what ends us may have ended the cell too
                    audience.warn(f"{event.cell} died: {event.why}")
                    died += [event.cell] if event.cell in audience.suite.cells else []
                else:
                    _replace(event, policy, backend, audience)
            check()
            audience.pause()
    except LockLost:  # without a checkpoint: the folder is another's now
        raise
    except Interrupted:
        raise Interrupted([*died, *_save(backend, audience)]) from None
    except Exception:
        with suppress(Exception):  # the first error is the one to tell
            _save(backend, audience)
        raise


def _check(interrupt: Interrupt, lost: Flag) -> None:
    """Raises LockLost or Interrupted where this invocation is to end."""
    if lost.is_set():
        raise LockLost("another driver has taken this run over after a long silence here")
    interrupt.check()


def _save(backend: Backend, audience: Audience) -> list[str]:
    """Have every cell write a checkpoint: those that died instead. Raises what went wrong."""
    died: list[str] = []
    for event in backend.stop():
        if isinstance(event, CellLost):
            audience.warn(f"{event.cell} died: {event.why}")
            died.append(event.cell)
        elif not isinstance(event, Notice):
            audience.hear(event)
    return died


def _replace(lost: CellLost, policy: FailurePolicy, backend: Backend, audience: Audience) -> None:
    decision = policy.decide(lost, audience.suite.progress(lost.cell))
    if isinstance(decision, GiveUp):
        raise Stopped(decision.why)
    audience.warn(
        f"{lost.cell} died: {lost.why}; it goes on {audience.suite.from_where(lost.cell)} in a new "
        f"process (try {decision.attempt} of {decision.budget})"
    )
    audience.suite.replace(lost.cell)
    backend.replace(lost.cell)


@contextmanager
def _closed_at_last(backend: Backend) -> Iterator[None]:
    """Also where nothing came to be started: planning may have joined a cluster."""
    try:
        yield
    finally:
        backend.close(clean=True)


def _exit_code(all_done: bool) -> int:
    return DONE if all_done else SOME_FAILED
