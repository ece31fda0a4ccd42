"""Which GPU an actor takes. What Ray gave it is made up: there is no GPU here, let alone two."""

from types import SimpleNamespace

import pytest

from orchestrator.ray_backend import actor
from orchestrator.ray_backend.actor import LOGICAL_GPUS, UNMASKED, masked


@pytest.fixture
def given(monkeypatch):
    for name in (LOGICAL_GPUS, UNMASKED, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def give(*ids, unmasked=None, seen=None):
        context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": list(ids), "TPU": []})
        monkeypatch.setattr(actor, "ray", SimpleNamespace(get_runtime_context=lambda: context))
        for name, value in ((UNMASKED, unmasked), ("CUDA_VISIBLE_DEVICES", seen)):
            if value is not None:
                monkeypatch.setenv(name, value)

    return give


@pytest.mark.parametrize("unmasked", [None, "0", "false", ""])
def test_the_only_gpu_that_ray_shows_is_the_first(given, unmasked):
    given("3", unmasked=unmasked, seen="3")
    assert masked("cuda:3") == "cuda:0"
    assert masked("cpu") == "cpu"


@pytest.mark.parametrize(
    ("ids", "seen", "device"),
    [
        (["3"], None, "cuda:3"),
        (["0"], "", "cuda:0"),
        (["7"], "4,7", "cuda:1"),  # the names of a node that shows two of its GPUs
        (["GPU-b"], "GPU-a, GPU-b", "cuda:1"),
        (["1", "2"], None, "cuda:1"),
    ],
)
@pytest.mark.parametrize("unmasked", ["1", "True"])
def test_of_all_gpus_it_takes_the_one_that_it_was_given(given, unmasked, ids, seen, device):
    given(*ids, unmasked=unmasked, seen=seen)
    assert masked("cuda:0") == device
    assert masked("cpu") == "cpu"


def test_gpus_that_are_mere_numbers_are_none(given, monkeypatch):
    given("1", unmasked="1")
    monkeypatch.setenv(LOGICAL_GPUS, "1")
    assert masked("cuda:1") == "cpu"
