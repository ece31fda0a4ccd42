"""Which GPUs a Ray of our own sees: those of the plan, by the numbers of whoever started us."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.ray_backend.cluster import _visible_gpus


@pytest.mark.parametrize(
    ("devices", "seen", "visible"),
    [
        (["cpu", "cpu"], None, None),
        (["cuda:1"], None, "1"),
        (["cuda:1", "cuda:1"], None, "1"),  # a producer and a cell
        (["cuda:2", "cuda:0", "cuda:2"], None, "0,2"),
        (["cuda:1"], "4,7", "7"),
        (["cuda:0", "cuda:1"], "GPU-a,GPU-b", "GPU-a,GPU-b"),
    ],
)
def test_only_planned_gpus_are_visible(monkeypatch, devices, seen, visible):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    found = _visible_gpus([SimpleNamespace(device=device) for device in devices])
    assert found.get("CUDA_VISIBLE_DEVICES") == visible
