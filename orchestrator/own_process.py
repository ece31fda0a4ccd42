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
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from orchestrator.own_process import serve; serve(*map(int, sys.argv[2:]))"
)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
log = logging.getLogger("mtc")


def in_own_process(work: Work, given: Any, progress: Progress, doing: str) -> None:
    """`work(given, progress)`: a function of a module, that may be killed at any moment, and
    something JSON-able. `progress` is called here, every now and then and with what it was last
    told, and may raise: that ends the work. doing: until it says something itself.

    Raises what the work raises: errors of the disk and MtcErrors as they are, others as
    RuntimeErrors; and ReadingStopped where the process dies."""
    ours, theirs = Pipe()
    with ours, theirs:
        words = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *words],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()  # else nobody would hear that it has ended
        try:
            # Raised below: of a network that failed, it may look like one of our connection.
            raised = _asked(
                ours,
                {"module": work.__module__, "name": work.__name__, "given": given},
                progress,
                doing,
            )
        except (EOFError, ConnectionError):
            progress(0, doing)  # what ended it may be ending us
            raise errors.ReadingStopped(_epitaph(process.wait())) from None
        finally:
            process.kill()
            process.wait()
    if raised:
        raise raised


def _asked(
    ours: Connection, what: dict[str, Any], progress: Progress, doing: str
) -> Exception | None:
    """Follow the work until it says that it is done, or what it raised."""
    _send(ours, what)
    tokens = 0
    while True:
        progress(tokens, doing)
        if not ours.poll(ASK_S):
            continue
        said = json.loads(ours.recv_bytes())
        match said["kind"]:
            case "progress":
                tokens, doing = said["tokens"], said["doing"]
            case "log":
                log.log(said["level"], "%s", said["text"])
            case "raised":
                return _error(said)
            case _:
                return None


def _epitaph(code: int) -> str:
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    why = ", which the system sends where memory runs out" if code == -signal.SIGKILL else ""
    return f"the process that writes tokens ended {how}{why}"


def serve(descriptor: int, parent: int) -> None:
    """The other side."""
    for number in SIGNALS:  # of a terminal, say, which sends them to all: who began us decides
        signal.signal(number, signal.SIG_IGN)
    _die_with(parent)
    theirs = Connection(descriptor)
    log.addHandler(_Teller(theirs))
    log.setLevel(logging.INFO)

    def progress(tokens: int, doing: str) -> None:
        _send(theirs, {"kind": "progress", "tokens": tokens, "doing": doing})

    with suppress(ConnectionError, EOFError):  # nobody is there any more
        asked = json.loads(theirs.recv_bytes())
        try:
            getattr(import_module(asked["module"]), asked["name"])(asked["given"], progress)
        except Exception as error:
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


def _told(error: Exception) -> dict[str, Any]:
    """JSON-able."""
    told: dict[str, Any] = {
        "name": type(error).__name__,
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
