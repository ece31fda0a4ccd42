"""The rows of the registry are what the files of a run say, as far as they are sound."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mtc_core.atomic import write_json_atomic
from mtc_core.errors import ConfigError
from orchestrator.registry import transcoder_facts
from orchestrator.registry.index import open_index
from tests.orchestrator.registry.runs import (
    PINS,
    STEPS,
    ask,
    read,
    states,
    transcoder,
)


def test_the_run_and_its_transcoders_are_as_the_files_say(run: Path) -> None:
    (row,) = ask(run, "SELECT * FROM run")
    assert (row["name"], row["model"], row["model_commit"]) == ("t", "gpt2", PINS["model"])
    assert (row["steps"], row["state"], row["step"]) == (STEPS, "stopped", 12)
    assert (row["transcoders"], row["done"], row["failed"]) == (4, 1, 1)
    specs = read(run / "resolved.json")["specs"]
    rows = ask(run, "SELECT * FROM transcoders")
    assert [row["id"] for row in rows] == list(specs)
    assert [row["state"] for row in rows] == ["done", "training", "failed", "waiting"]
    assert [row["step"] for row in rows] == [STEPS, 12, 6, 0]
    assert [row["reason"] for row in rows] == [None, None, "its loss is not finite", None]
    assert [row["source_layer"] for row in rows] == [0, 1, 2, 3]
    digests = read(transcoder(run, 0) / "final" / "sha256.json")
    assert rows[0]["weights_sha256"] == digests["weights.safetensors"]
    sizes = {"d_in": 20, "d_out": 12, "d_sae": 48, "k": 5, "group_sizes": "[8, 16, 24]"}
    assert all(sizes.items() <= row.items() and row["damaged"] is None for row in rows)


def test_checkpoints_metrics_and_invocations_are_as_the_files_say(run: Path) -> None:
    rows = ask(run, "SELECT * FROM checkpoints")
    assert [row["step"] for row in rows] == [15, 20, 10, 12, 5, 6]
    for row in rows:
        folder = run / row["path"]
        assert row["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
        assert row["sha256"] == read(folder / "sha256.json")["state.safetensors"]
        assert row["metrics_bytes"] == read(folder / "facts.json")["metrics_bytes"]
    for row in ask(run, "SELECT * FROM training"):
        lines = (run / "transcoders" / row["transcoder"] / "metrics.jsonl").read_text()
        last = json.loads(lines.splitlines()[-1])
        assert json.loads(row["fvu_by_prefix"]) == last["fvu_by_prefix"]
        assert (row["step"], row["loss"], row["lr"]) == (last["step"], last["loss"], last["lr"])
    (row,) = ask(run, "SELECT * FROM invocations")
    assert (row["number"], row["outcome"], row["exit_code"]) == (1, "some failed", 1)
    assert json.loads(row["at_end"]) == read(run / "invocations" / "0001.end.json")


def test_evaluations_are_as_the_files_say(run: Path) -> None:
    evaluation = read(transcoder(run, 0) / "evaluation.json")
    (row,) = ask(run, "SELECT * FROM evaluations")
    assert row["threshold"] == evaluation["threshold"] > 0
    for population in ("ordinary", "all"):
        figures = evaluation[population]
        (row,) = ask(run, f"SELECT * FROM populations WHERE population = '{population}'")
        assert row["fvu_ridge"] == figures["fvu_ridge"] and json.loads(row["figures"]) == figures
        rows = ask(run, f"SELECT * FROM prefixes WHERE population = '{population}'")
        assert [row["width"] for row in rows] == [8, 24, 48]
        assert [row["fvu"] for row in rows] == figures["fvu_by_prefix"]
        assert [row["nonzeros_share"] for row in rows] == figures["nonzeros_by_group"]


@pytest.mark.parametrize(
    ("file", "query"),
    [
        ("plan.json", "SELECT damaged FROM run"),
        ("transcoders/L00*/evaluation.json", "SELECT damaged FROM transcoders"),
        ("transcoders/L00*/metrics.jsonl", "SELECT damaged FROM transcoders"),
        ("transcoders/L00*/final/sha256.json", "SELECT damaged FROM transcoders"),
        ("transcoders/L02*/failed.json", "SELECT damaged FROM transcoders LIMIT 1 OFFSET 2"),
        ("transcoders/L00*/checkpoints/*15/facts.json", "SELECT damaged FROM checkpoints"),
        ("transcoders/L00*/checkpoints/*15/sha256.json", "SELECT damaged FROM checkpoints"),
        ("invocations/0001.begin.json", "SELECT damaged FROM invocations"),
        ("invocations/0001.end.json", "SELECT damaged FROM invocations"),
    ],
)
@pytest.mark.parametrize("content", [b"{\xff\n", b"[1]\n"])
def test_a_damaged_small_file_is_told_in_its_row_and_hides_nothing_else(
    run: Path, file: str, query: str, content: bytes
) -> None:
    (path,) = run.glob(file)
    path.write_bytes(content)
    told = next(iter(ask(run, query)[0].values()))
    assert told.startswith(path.name) or told.startswith(f"final/{path.name}")
    assert "is damaged" in told
    assert states(run) == "dtfw"


def test_checkpoints_dropped_while_they_are_read_are_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_object = transcoder_facts.read_object

    def read_after_the_trainer_has_dropped_them(path: str | Path) -> dict[str, Any] | None:
        for layer in (0, 1, 2):
            shutil.rmtree(transcoder(run, layer) / "checkpoints", ignore_errors=True)
        return read_object(path)

    monkeypatch.setattr(transcoder_facts, "read_object", read_after_the_trainer_has_dropped_them)
    assert ask(run, "SELECT * FROM checkpoints") == []
    assert states(run) == "dtfw"


def test_a_run_without_a_sound_resolved_json_is_one_message(run: Path) -> None:
    path = run / "resolved.json"
    resolved = read(path)
    first = next(iter(resolved["specs"].values()))
    for change in ({"k": 0}, {"source": "nowhere"}, {"group_sizes": None}):
        write_json_atomic(path, {**resolved, "specs": {"L00": {**first, **change}}})
        with pytest.raises(ConfigError, match=r"resolved\.json is damaged"):
            open_index(run)
    for name in (["t"], "\ud800"):
        path.write_text(json.dumps({**resolved, "name": name}))
        with pytest.raises(ConfigError, match="its files say what no index can hold"):
            open_index(run)
    path.unlink()
    with pytest.raises(ConfigError, match="just being begun anew"):
        open_index(run)


def test_integers_beyond_those_of_sqlite_are_rounded(run: Path) -> None:
    resolved = read(run / "resolved.json")
    write_json_atomic(run / "resolved.json", {**resolved, "seed": 10**30})
    assert ask(run, "SELECT seed FROM run") == [{"seed": 1e30}]
