"""What Ray's errors mean for a user: a cell that died, or one message and the end."""

from __future__ import annotations

from ray import exceptions

from mtc_core.errors import ConfigError, MtcError
from orchestrator.failures import Stopped
from orchestrator.status import CellLost, Loss

# Of Ray's own memory monitor. Its text for any other death names the kernel's OOM killer among
# "common causes", which says nothing.
_MEMORY = ("running low on memory", "NODE_OUT_OF_MEMORY")


def lost_cell(cell: str, error: exceptions.RayError) -> CellLost | None:
    """If the error says that the cell's process is gone: what it died of."""
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError):
        return CellLost(cell, "memory", _OUT_OF_MEMORY)
    if isinstance(error, exceptions.ActorUnavailableError):
        return CellLost(cell, "crash", "it does not answer any more")
    if isinstance(error, exceptions.NodeDiedError):
        return CellLost(cell, "node", "its node is gone")
    if isinstance(error, exceptions.ActorDiedError) and not error.actor_init_failed:
        kind, why = _death(text, error.preempted)
        return CellLost(cell, kind, why)
    return None


def explained(cell: str, error: exceptions.RayError) -> Exception:
    """Every other error: the user's own, where a cell raised it, or the reason to stop."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, MtcError):
        return cause
    if isinstance(error, exceptions.RayTaskError):
        return error
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        return ConfigError(f"{cell}: Ray could not set up its process: {_line(error)}")
    if isinstance(error, exceptions.ObjectStoreFullError | exceptions.OutOfDiskError):
        return ConfigError(
            f"Ray's object store is full ({_line(error)}); start the cluster with a larger "
            "--object-store-memory, or free its disk"
        )
    if isinstance(error, exceptions.AuthenticationError):
        return ConfigError(
            "the Ray cluster refuses our token; copy its ~/.ray/auth_token to this machine, or "
            "set RAY_AUTH_TOKEN"
        )
    return Stopped(f"{cell}: Ray says: {_line(error)}")


_OUT_OF_MEMORY = (
    "Ray killed it because its node ran out of memory; lower train.block_batches, "
    "train.batch_tokens or resources.cells"
)


def _death(text: str, preempted: bool) -> tuple[Loss, str]:
    if any(mark in text for mark in _MEMORY):
        return "memory", _OUT_OF_MEMORY
    if preempted or "node died" in text or "node was terminated" in text:
        return "node", "its node is gone"
    if "SIGKILL" in text or "connection error" in text:
        return "crash", "its process was killed, or crashed (the kernel kills for want of memory)"
    return "crash", _line(Exception(text))


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:400] or type(error).__name__
