"""Work in a process of its own, which is gone when it is done, and with it all that it had loaded.

Tokenizers come with transformers, and those with torch: 270 MB that a driver beside its trainers
would keep for nothing. What goes between the two is JSON: neither runs what the other says.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from mtc_core import errors
from orchestrator.interrupts import SIGNALS

Progress = Callable[[int, str], None]
Work = Callable[[Any, Progress], None]
ASK_S = 0.2  # between two looks at what asks us to end
GONE_S = 5.0  # from the last that is heard of a process to its end
# Our path before any import: the folder that we are in is not on it, and may have a json.py.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from orchestrator.own_process import serve; serve(*map(int, sys.argv[1:3]))"
)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
log = logging.getLogger("mtc")


class _Gone(Exception):
    """The process has ended, or says nothing any more."""


def in_own_process(work: Work, given: Any, progress: Progress, doing: str) -> None:
    """`work(given, progress)`: a function of a module, that may be killed at any moment, and
    something JSON-able. `progress` is called here, every now and then and with what it was last
    told, and may raise: that ends the work. doing: until it says something itself.

    Raises what the work raises: errors of the disk and MtcErrors as they are, others as
    RuntimeErrors; and ReadingStopped where the process dies."""
    ours, theirs = Pipe()
    with ours, theirs:
        process = _begun(theirs)
        theirs.close()  # else nobody would hear that it has ended
        try:
            _ask(ours, {"module": work.__module__, "name": work.__name__, "given": given})
            _follow(process, ours, progress, doing)
        except _Gone:
            progress(0, doing)  # what ended it may be ending us
            with suppress(subprocess.TimeoutExpired):
                process.wait(GONE_S)
            raise errors.ReadingStopped(_epitaph(process.poll())) from None
        finally:
            process.kill()
            process.wait()


def _begun(theirs: Connection) -> subprocess.Popen[bytes]:
    words = [str(theirs.fileno()), str(os.getpid()), *filter(_is_text, sys.path)]
    # Until it has them ignored: a terminal sends them to all.
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *words],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _is_text(entry: object) -> bool:
    return isinstance(entry, str)


def _follow(
    process: subprocess.Popen[bytes], ours: Connection, progress: Progress, doing: str
) -> None:
    """Until it says that it is done. Raises what it says that the work raised."""
    tokens = 0
    while True:
        progress(tokens, doing)
        said = _heard(process, ours)
        match said["kind"]:
            case "progress":
                tokens, doing = said["tokens"], said["doing"]
            case "log":
                log.log(said["level"], "%s", said["text"])
            case "raised":
                raise _error(said)
            case "done":
                return


def _ask(ours: Connection, what: dict[str, Any]) -> None:
    try:
        _send(ours, what)
    except ConnectionError:
        raise _Gone from None


def _heard(process: subprocess.Popen[bytes], ours: Connection) -> dict[str, Any]:
    """What it says next, or nothing yet. Raises _Gone."""
    try:
        if ours.poll(ASK_S):
            return json.loads(ours.recv_bytes())
        ended = process.poll() is not None  # and what it has begun itself may hold the line
    except (EOFError, ConnectionError):
        raise _Gone from None
    if ended and not ours.poll():
        raise _Gone
    return {"kind": "nothing"}


def _epitaph(code: int | None) -> str:
    if code is None:
        return "the process that writes tokens is silent"
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    why = ", which the system sends where memory runs out" if code == -signal.SIGKILL else ""
    return f"the process that writes tokens ended {how}{why}"


def serve(descriptor: int, parent: int) -> None:
    """The other side."""
    for number in SIGNALS:  # who began us decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _die_with(parent)
    os.set_inheritable(descriptor, False)  # else what the work begins would hold the line
    theirs = Connection(descriptor)
    log.addHandler(_Teller(theirs))
    log.setLevel(logging.INFO)

    def progress(tokens: int, doing: str) -> None:
        _send(theirs, {"kind": "progress", "tokens": tokens, "doing": doing})

    with suppress(ConnectionError, EOFError):  # nobody is there any more
        asked = json.loads(theirs.recv_bytes())
        try:
            getattr(import_module(asked["module"]), asked["name"])(asked["given"], progress)
        except BaseException as error:  # tokenizers panic with others than Exceptions
            _send(theirs, {"kind": "raised", **_told(error)})
        else:
            _send(theirs, {"kind": "done"})


class _Teller(logging.Handler):
    def __init__(self, to: Connection) -> None:
        super().__init__()
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        _send(self._to, {"kind": "log", "level": record.levelno, "text": record.getMessage()})


def _send(to: Connection, what: dict[str, Any]) -> None:
    to.send_bytes(json.dumps(what).encode())


def _told(error: BaseException) -> dict[str, Any]:
    """JSON-able. By its nearest class that all know: subclasses take more than a text."""
    known = [kind for kind in type(error).__mro__ if vars(errors).get(kind.__name__) is kind]
    told: dict[str, Any] = {
        "name": (known or [type(error)])[0].__name__,
        "text": str(error),
        "trace": "".join(traceback.format_exception(error)),
    }
    if isinstance(error, OSError) and error.errno:
        name = error.filename
        place = os.fsdecode(name) if isinstance(name, str | bytes) else None
        told |= {"errno": error.errno, "strerror": error.strerror, "filename": place}
    return told


def _error(told: dict[str, Any]) -> Exception:
    kind = getattr(errors, told["name"], None)
    if isinstance(kind, type) and issubclass(kind, errors.MtcError):
        return kind(told["text"])
    error: Exception
    if "errno" in told:
        error = OSError(told["errno"], told["strerror"], told["filename"])
    else:
        error = RuntimeError(f"{told['name']}: {told['text']}")
    error.add_note(told["trace"])  # for the log
    return error


def _die_with(parent: int) -> None:
    """However it ends: another driver may go on with its folder at once. Elsewhere than on Linux
    only when next something is said."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
