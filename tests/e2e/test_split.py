"""Producers and cells in one process: the bits of a run whose cells run the model themselves."""

from __future__ import annotations

import json
import random
import re
import signal

import pytest

from tests.e2e.runs import (
    SignalAfter,
    finals,
    run_here,
    run_in_child,
    uninterrupted,
    write_manifest,
)


def split(producers: int, cells: int, *more: str) -> list[str]:
    keys = {"topology": "split", "producers": producers, "cells": cells}
    return [*(f"resources.{key}={value}" for key, value in keys.items()), *more]


def passes(printed: str) -> int:
    return int(re.search(r"(\d+) forward passes in all", printed)[1])


@pytest.mark.parametrize("prefetch", ["auto", "1"])
@pytest.mark.parametrize(("producers", "cells"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 3)])
def test_whoever_runs_the_model_the_bits_and_the_forwards_are_the_same(
    reference, tmp_path, producers, cells, prefetch
):
    manifest, fused, printed_fused = reference
    overrides = split(producers, cells, f"resources.prefetch_steps={prefetch}")
    code, printed = run_here(manifest, tmp_path, *overrides)
    assert code == 0, printed
    assert finals(tmp_path / "small") == finals(fused)
    assert passes(printed) == passes(printed_fused)
    assert "fallen behind" not in printed


def test_a_run_shorter_than_a_block_has_the_statistics_of_the_whole_block(model, tmp_path):
    (tmp_path / "fused").mkdir()
    manifest, fused, _ = uninterrupted(tmp_path / "fused", model, tokens=256 * 2)
    code, printed = run_here(manifest, tmp_path, *split(2, 2))
    assert code == 0, printed
    assert finals(tmp_path / "small") == finals(fused)


def test_killed_and_gone_on_with_in_another_topology_each_time(reference, model, tmp_path):
    _, fused, _ = reference
    manifest = write_manifest(tmp_path, model)
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    for overrides in (split(2, 2), split(1, 3), ["resources.cells=2"], split(2, 1)):
        sabotage = SignalAfter(rng.randint(1, 20), rng.random() * 0.03)
        assert run_in_child(manifest, tmp_path, sabotage, *overrides) == -signal.SIGKILL, seed
    assert run_in_child(manifest, tmp_path, None, *split(1, 2)) == 0, seed
    assert finals(tmp_path / "small") == finals(fused), f"seed {seed}"


def test_a_signal_saves_what_cells_have_done(reference, model, tmp_path):
    _, fused, _ = reference
    manifest = write_manifest(tmp_path, model, checkpoint_minutes=60)
    sabotage = SignalAfter(30, 0.01, signal.SIGINT)
    assert run_in_child(manifest, tmp_path, sabotage, *split(2, 2)) == 130
    assert len(list((tmp_path / "small").glob("transcoders/*/checkpoints/step-*"))) == 4
    assert run_in_child(manifest, tmp_path) == 0
    assert finals(tmp_path / "small") == finals(fused)


class FirstCellCannotSave:
    """When a signal comes."""

    def plant(self) -> None:
        from orchestrator.cells.cell import Cell

        SignalAfter(40, 0, signal.SIGTERM).plant()
        checkpoint = Cell.checkpoint

        def refuse_or_write(cell: Cell) -> None:
            if cell.job.name.startswith("trainer-0"):
                raise OSError(28, "No space left on device", "/full")
            checkpoint(cell)

        Cell.checkpoint = refuse_or_write


def test_a_cell_that_cannot_be_saved_keeps_none_of_the_others(model, tmp_path):
    manifest = write_manifest(tmp_path, model, tokens=256 * 400, checkpoint_minutes=10)
    assert run_in_child(manifest, tmp_path, FirstCellCannotSave(), *split(1, 2)) not in (0, 143)
    saved = sorted(path.parts[-3] for path in tmp_path.glob("small/transcoders/*/checkpoints/*"))
    cells = json.loads((tmp_path / "small" / "plan.json").read_text())["cells"]
    assert saved == sorted(cells[1]["transcoders"]) != []
