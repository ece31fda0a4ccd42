"""What Ray's errors mean for a user: a cell that died, or one message and the end."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from ray import exceptions

from mtc_core.errors import ConfigError, MtcError
from orchestrator.cells.status import CellLost, Loss
from orchestrator.failures import Stopped

# Of Ray's own memory monitor. Its text for any other death names the kernel's OOM killer among
# "common causes", which says nothing.
_MEMORY = ("running low on memory", "NODE_OUT_OF_MEMORY")
_NODE = ("node died", "node was terminated", "node has died")
_NODE_GONE = "its node is gone, or cannot be reached"  # Ray cannot tell which
_LACKING = re.compile(r"No module named '[^']+'|cannot import name '[^']+'")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # around what Ray calls a process
_DRIVER_NODE = "owner has died"  # the owner of every cell is the driver
_OUT_OF_MEMORY = (
    "Ray killed it because its node ran out of memory; lower resources.cells or "
    "resources.producers, or, in a new run, train.block_batches or train.batch_tokens"
)
log = logging.getLogger("mtc")


def lost_cell(cell: str, error: exceptions.RayError) -> CellLost | None:
    """If the error says that the cell's process is gone: what it died of."""
    text = str(error)
    if _DRIVER_NODE in text or _LACKING.search(text):
        return None  # a new process would die of the same
    if isinstance(error, exceptions.RayTaskError):
        return None  # it lives: whatever it raised is of its cause's type, too
    if isinstance(error, exceptions.OutOfMemoryError):
        return CellLost(cell, "memory", _OUT_OF_MEMORY)
    if isinstance(error, exceptions.ActorUnavailableError):
        return CellLost(cell, "crash", "it does not answer any more")
    if isinstance(error, exceptions.NodeDiedError):
        return CellLost(cell, "node", _NODE_GONE)
    if isinstance(error, exceptions.ActorDiedError) and not error.actor_init_failed:
        kind, why = _death(text, error.preempted)
        return CellLost(cell, kind, why)
    return None


def explained(cell: str, error: exceptions.RayError) -> Exception:
    """Every other error: the user's own, where a cell raised it, or the reason to stop."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, MtcError):
        return cause
    text = str(error)
    if _DRIVER_NODE in text or isinstance(error, exceptions.LocalRayletDiedError):
        return Stopped("the Ray node on which this command runs has left its cluster")
    if isinstance(error, exceptions.RayActorError) and (lacking := _LACKING.search(text)):
        return ConfigError(
            f"{cell}: the node that Ray gave it lacks what this machine has ({lacking[0]}); "
            "install mtc-orchestrator, of the same version, in the Python that runs Ray there"
        )
    if isinstance(cause, exceptions.RayError):  # what it was told itself: a full store, say
        return _of_cluster(cell, cause)
    if isinstance(cause, Exception):  # a bug of ours: its own text, with the remote traceback
        cause.add_note(text)
        return cause
    return _of_cluster(cell, error)


def _of_cluster(cell: str, error: exceptions.RayError) -> Exception:
    match error:
        case exceptions.RuntimeEnvSetupError():
            return ConfigError(f"{cell}: Ray could not set up its process: {one_line(error)}")
        case exceptions.ObjectStoreFullError():
            return ConfigError(
                "Ray's object store is full: see what fills it (`ray memory`), or start the "
                "cluster with a larger --object-store-memory; producers put "
                "resources.prefetch_steps there, other runs only a few kB"
            )
        case exceptions.OutOfDiskError():
            return ConfigError(
                "the disk is full on which Ray keeps what does not fit its object store; free "
                "space there (--temp-dir of `ray start`, or /tmp)"
            )
        case exceptions.AuthenticationError():
            return ConfigError(f"{cell}: {OTHER_TOKEN}")
        case exceptions.ActorPlacementGroupRemoved() | exceptions.TaskPlacementGroupRemoved():
            return Stopped(PLACEMENT_GONE)
    # With its frames, for which no line has room.
    log.error("%s: %s", cell, _COLOURS.sub("", str(error)))
    if isinstance(error, exceptions.ActorDiedError) and error.actor_init_failed:
        return Stopped(f"{cell}: its process could not begin: {_last_line(error)}")
    return Stopped(f"{cell}: Ray says: {one_line(error)}")


OTHER_TOKEN = (
    "the cluster asks for a token, and ours is missing or another; copy the head's "
    "~/.ray/auth_token to this machine (or set RAY_AUTH_TOKEN to what `ray get-auth-token` "
    "prints there), with RAY_AUTH_MODE=token or unset"
)
PLACEMENT_GONE = "the cluster has taken back the run's placement group"


def not_started(error: Exception, folder: Path) -> str:
    """Why a Ray of our own, whose files are in `folder`, is not there."""
    return (
        f"Ray did not start ({one_line(error)}); its logs are in {folder}. Is that disk full? "
        "With --backend local the run needs no Ray"
    )


def one_line(error: Exception) -> str:
    """Its text, however many lines it has."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:400] or type(error).__name__


def _last_line(error: Exception) -> str:
    """Of a traceback, what was raised: its first lines are Ray's header and the outer frames, of
    which one_line would show nothing else."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__


def _death(text: str, preempted: bool) -> tuple[Loss, str]:
    if any(mark in text for mark in _MEMORY):
        return "memory", _OUT_OF_MEMORY
    if preempted or any(mark in text for mark in _NODE):
        return "node", _NODE_GONE
    if "SIGKILL" in text or "connection error" in text:
        return "crash", "its process was killed, or crashed (the kernel kills for want of memory)"
    return "crash", one_line(Exception(text.rpartition("exit detail:")[2] or text))
