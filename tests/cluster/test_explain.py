"""What Ray raises, as a user is told it. Of its own exception classes, where the situation itself
cannot be had here, or is had in the other tests."""

from __future__ import annotations

import pytest
import torch
from ray import exceptions
from ray._private.utils import check_version_info
from ray.core.generated.common_pb2 import ActorDiedErrorContext

from mtc_core.errors import ConfigError, ModelError
from orchestrator.cells.memory_errors import memory_errors
from orchestrator.failures import Stopped
from orchestrator.ray_backend.explain import explained, lost_cell, one_line
from orchestrator.ray_backend.shortfall import Crew, needs, remedy

CELL = "trainer-0[L00-L02]"


def died(text: str) -> exceptions.ActorDiedError:
    return exceptions.ActorDiedError(
        ActorDiedErrorContext(error_message=text, actor_id=bytes(16), class_name="X")
    )


def raised_in_a_cell(cause: Exception) -> exceptions.RayTaskError:
    return exceptions.RayTaskError("load", "a remote traceback", cause)


@pytest.mark.parametrize(
    "error, kind, word",
    [
        (exceptions.OutOfMemoryError("x"), "memory", "train.block_batches"),
        (
            died("Task was killed due to the node running low on memory."),
            "memory",
            "resources.cells",
        ),
        (died("exit detail: Worker unexpectedly exits with a connection error"), "crash", "killed"),
        (died("The actor is dead because its node has died."), "node", "node is gone"),
        (exceptions.NodeDiedError("x"), "node", "node is gone"),
        (exceptions.ActorUnavailableError("rpc", bytes(16)), "crash", "does not answer"),
    ],
)
def test_a_process_that_is_gone_is_a_loss_of_its_kind(error, kind, word):
    lost = lost_cell(CELL, error)
    assert lost and lost.kind == kind and word in lost.why
    assert ("ran out of memory" in lost.why) == (kind == "memory")


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (
            exceptions.ObjectStoreFullError("x"),
            ConfigError,
            ["--object-store-memory", "ray memory"],
        ),
        (exceptions.OutOfDiskError("x"), ConfigError, ["free space", "--temp-dir"]),
        (exceptions.AuthenticationError("x"), ConfigError, ["RAY_AUTH_TOKEN", "auth_token"]),
        (exceptions.RuntimeEnvSetupError("no pip"), ConfigError, ["set up its process", "no pip"]),
        (exceptions.ActorPlacementGroupRemoved(), Stopped, ["taken back"]),
        (exceptions.LocalRayletDiedError(), Stopped, ["on which this command runs"]),
        (died("The actor is dead because its owner has died."), Stopped, ["this command runs"]),
        (
            died("System error: No module named 'orchestrator.cells.cell'"),
            ConfigError,
            ["install mtc-"],
        ),
        (exceptions.RaySystemError("odd"), Stopped, ["Ray says: System error: odd"]),
    ],
)
def test_every_other_error_of_ray_is_one_message(error, kind, words):
    assert lost_cell(CELL, error) is None
    told = explained(CELL, error)
    assert type(told) is kind and "\n" not in str(told)
    assert all(word in str(told) for word in words), told


def test_what_a_cell_raised_comes_out_as_it_went_in():
    mistake, bug = ModelError("no such layer"), KeyError("a bug")
    assert explained(CELL, raised_in_a_cell(mistake)) is mistake
    assert explained(CELL, raised_in_a_cell(bug)) is bug
    assert str(bug) == "'a bug'" and "a remote traceback" in bug.__notes__[0]


@pytest.mark.parametrize("kind", [exceptions.OutOfMemoryError, exceptions.NodeDiedError])
def test_a_process_that_hears_of_anothers_death_is_not_taken_for_dead(kind):
    """Ray's error is of both types."""
    told = raised_in_a_cell(kind("x")).as_instanceof_cause()
    assert isinstance(told, kind) and lost_cell(CELL, told) is None


@pytest.mark.parametrize(
    "cause, words",
    [
        (exceptions.ObjectStoreFullError("x"), "--object-store-memory"),
        (exceptions.OutOfDiskError("x"), "--temp-dir"),
    ],
)
def test_a_store_that_is_full_is_told_alike_by_the_producer_that_fills_it(cause, words):
    told = explained("producer-0", raised_in_a_cell(cause).as_instanceof_cause())
    assert isinstance(told, ConfigError) and words in str(told)


def test_another_python_is_told_in_one_line():
    cluster = {"ray_version": "2.60.0", "python_version": "3.9.1"}
    with pytest.raises(RuntimeError) as raised:
        check_version_info(cluster, "node 10.0.0.1")
    line = one_line(raised.value)
    assert line.startswith("Version mismatch: The cluster was started with:") and "3.9.1" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "error, words",
    [
        # Real ones are in test_joined.py; a GPU cannot be had here.
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB."),
            "cuda:3 (asked for 2.50 GiB more)",
        ),
        (RuntimeError("CUDA error: out of memory"), "on cuda:3;"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "on cuda:3;"),
        (OSError(12, "Cannot allocate memory"), "out of memory on "),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "(asked for 7.45 GiB more)"),
    ],
)
def test_memory_that_ran_out_is_told_with_the_keys(error, words):
    with pytest.raises(ConfigError) as raised, memory_errors(CELL, "cuda:3"):
        raise error
    assert str(raised.value).startswith(f"{CELL}: out of memory on ")
    assert words in str(raised.value) and "train.block_batches" in str(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(2, "No such file")])
def test_other_errors_are_not_about_memory(error):
    with pytest.raises(type(error)) as raised, memory_errors(CELL, "cpu"):
        raise error
    assert raised.value is error


def test_the_remedy_fits_the_shortfall():
    cell = {"CPU": 2, "memory": 1e9}
    node, roomy = {"CPU": 2, "memory": 8e9}, {"CPU": 4, "memory": 1e9}
    one, two, fed = Crew(1), Crew(2), Crew(1, 1)
    both = "Add nodes, or lower resources.cells, or for a run that has not begun, lower resources."
    assert remedy(two, [cell] * 2, [node]).startswith(both)
    assert remedy(two, [cell] * 2, [roomy]).startswith("Add nodes")  # memory for one only
    assert remedy(one, [cell], [{"CPU": 1, "memory": 8e9}] * 3).startswith("Add a larger node, or")
    assert remedy(two, [cell] * 2, [node, node]).startswith("Wait for the other jobs")
    assert remedy(one, [{"CPU": 1, "GPU": 1, "memory": 0}], [{"CPU": 4}]) == "Add a larger node"
    assert "or set resources.topology: fused" in remedy(fed, [cell] * 2, [node])
    assert "lower resources.producers, or set" in remedy(Crew(1, 2), [cell] * 3, [node])


def test_a_shortfall_names_who_needs_what():
    gpus = [{"CPU": 1, "GPU": 1, "memory": 0}] * 2
    assert needs(Crew(2), gpus) == "2 cells, which need 2 × (1 CPU + 1 GPU), each on one node"
    assert needs(Crew(1), gpus[:1]) == "a cell, which needs 1 CPU + 1 GPU on one node"
    shared = [{"CPU": 2, "GPU": 1, "memory": 0}]
    assert needs(Crew(1, 1), shared) == (
        "a cell and a producer, which need 2 CPU + 1 GPU on one node"
    )
    cpus = [{"CPU": 1, "memory": 5e8}] * 3
    assert needs(Crew(2, 1), cpus).startswith("2 cells and a producer, which need 3 × (1 CPU + ")
