"""A process that dies in its constructor, as Ray words it: of its own classes, without a Ray. The
other errors are in tests/cluster/test_explain.py."""

from __future__ import annotations

import logging

import pytest
from ray import exceptions

from mtc_core.errors import ConfigError
from orchestrator.failures import Stopped
from orchestrator.ray_backend.explain import explained, lost_cell

CELL = "trainer-0[L00-L05]"
FOLDER = "/opt/conda/envs/train/lib/python3.11/site-packages"
REASON = "libcublas.so.12: cannot open shared object file: No such file or directory"


def died_in_its_constructor(cause: Exception) -> exceptions.ActorDiedError:
    """With a header and so many frames that the reason comes after the 400th character."""
    header = f"\x1b[36mray::{CELL}:TranscoderTrainer.__init__()\x1b[39m (pid=1234, ip=10.0.12.7)"
    files = ("orchestrator/ray_backend/actor.py", "orchestrator/cells/cell.py", "torch/__init__.py")
    frames = [f'  File "{FOLDER}/{file}", line 39, in f\n    import x' for file in files]
    trace = "\n".join([header, *frames, f"{type(cause).__name__}: {cause}", ""])
    raised = exceptions.RayTaskError("TranscoderTrainer.__init__", trace, cause, actor_id="8d5f")
    return exceptions.ActorDiedError.from_task_error(raised)


def test_the_reason_is_told_and_the_frames_are_logged(caplog):
    error = died_in_its_constructor(OSError(REASON))
    assert lost_cell(CELL, error) is None, "a new process would die of the same"
    with caplog.at_level(logging.ERROR, "mtc"):
        told = explained(CELL, error)
    assert type(told) is Stopped
    assert str(told) == f"{CELL}: its process could not begin: OSError: {REASON}"
    assert "torch/__init__.py" in caplog.text and REASON in caplog.text
    assert "\x1b" not in caplog.text


def test_what_is_not_installed_there_still_has_its_remedy():
    error = died_in_its_constructor(ModuleNotFoundError("No module named 'torch'"))
    told = explained(CELL, error)
    assert type(told) is ConfigError and "install mtc-orchestrator" in str(told)


@pytest.mark.parametrize("error", [exceptions.RaySystemError("odd"), exceptions.RayError("")])
def test_every_other_error_is_told_as_ray_words_it(error):
    assert str(explained(CELL, error)).startswith(f"{CELL}: Ray says: ")
