"""What `registry gc` lists and deletes, and above all what it does not."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtc_core.atomic import write_json_atomic
from mtc_core.errors import ConfigError
from orchestrator.cli import cli
from orchestrator.registry import gc
from orchestrator.registry.gc import COSTS, QUIET_S, Collected, Rubbish, find_rubbish
from orchestrator.registry.verify import verify
from orchestrator.run_folder.lock import run_lock
from orchestrator.snapshot import Snapshot
from orchestrator.status_file import StatusFile
from tests.orchestrator.registry.runs import age, read, states, transcoder

KINDS = tuple(COSTS)


def collect(run: Path, rubbish: list[Rubbish]) -> tuple[list[Rubbish], list[str]]:
    """What has gone, and why something stayed."""
    collected = Collected()
    gc.collect(run, rubbish, collected)
    return collected.gone, collected.kept


def furnish(run: Path) -> None:
    """What the fabricated run lacks: tokens, an interrupted eval, leftovers, W&B."""
    for name in ("store.json", "holdout.json", "test.ids.npy", "test.rows.npy", "end.json"):
        put(run / "tokens" / name)
    for number in (0, 1):
        for kind in ("json", "ids.npy", "rows.npy"):
            put(run / "tokens" / f"window-{number:05d}.{kind}")
    put(run / "evaluations" / "test" / "splice.progress.safetensors")
    put(run / ".index.sqlite.77.tmp")
    put(transcoder(run, 1) / "checkpoints" / ".step-000000015.77.tmp" / "state.safetensors")
    put(run / "wandb" / ".something.tmp")
    age(run)


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 100)


def all_done(run: Path) -> None:
    """Leave only the transcoder that is done in resolved.json, as a suite of one."""
    resolved = read(run / "resolved.json")
    (id,) = [id for id in resolved["specs"] if id.startswith("L00")]
    write_json_atomic(run / "resolved.json", {**resolved, "specs": {id: resolved["specs"][id]}})
    for path in (run / "transcoders").iterdir():
        if path.name != id:
            shutil.rmtree(path)


def files(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if not path.is_dir()}


def listed(run: Path, *kinds: str) -> dict[str, tuple[str, ...]]:
    return {one.kind: one.paths for one in find_rubbish(run, kinds or KINDS)}


def test_of_a_run_with_work_left_only_what_is_done_with_is_listed(run: Path) -> None:
    furnish(run)
    found = listed(run)
    done = transcoder(run, 0).name
    steps = [f"transcoders/{done}/checkpoints/step-{step:09d}" for step in (15, 20)]
    assert found["checkpoints"] == tuple(steps)  # not those of one in training, nor of a failed one
    assert "tokens" not in found
    assert found["measurements"] == ("evaluations/test/splice.progress.safetensors",)
    training = transcoder(run, 1).name
    assert set(found["leftovers"]) == {
        ".index.sqlite.77.tmp", f"transcoders/{training}/checkpoints/.step-000000015.77.tmp"
    }  # fmt: skip
    assert listed(run, "leftovers").keys() == {"leftovers"}


def test_bytes_are_those_of_the_files(run: Path) -> None:
    furnish(run)
    all_done(run)
    for one in find_rubbish(run, KINDS):
        paths = [run / path for path in one.paths]
        inner = [f for path in paths for f in [path, *path.rglob("*")] if f.is_file()]
        assert one.bytes == sum(file.stat().st_size for file in inner) > 0


def test_exactly_what_is_listed_is_deleted(run: Path) -> None:
    furnish(run)
    all_done(run)
    before, rubbish = files(run), find_rubbish(run, KINDS)
    goes = {file for file in before for one in rubbish for path in one.paths
            if file == path or file.startswith(f"{path}/")}  # fmt: skip
    assert {one.kind for one in rubbish} >= {"checkpoints", "tokens", "measurements", "leftovers"}
    gone, kept = collect(run, rubbish)
    assert gone == rubbish and not kept
    assert files(run) - {"index.sqlite"} == before - goes - {"index.sqlite"}
    stays = {"store.json", "holdout.json", "test.ids.npy", "test.rows.npy"}
    assert {path.name for path in (run / "tokens").iterdir()} == stays
    assert (run / "wandb" / ".something.tmp").exists()
    assert find_rubbish(run, KINDS) == []
    assert states(run) == "d" and not verify(run).faults


def test_windows_go_from_the_last_and_the_end_before_them(run: Path) -> None:
    """So that a kill leaves what a killed writer of tokens leaves."""
    furnish(run)
    all_done(run)
    names = [Path(path).name for path in listed(run, "tokens")["tokens"]]
    assert names == [
        "end.json", "window-00001.json", "window-00001.ids.npy", "window-00001.rows.npy",
        "window-00000.json", "window-00000.ids.npy", "window-00000.rows.npy",
    ]  # fmt: skip


def test_what_has_come_since_it_was_listed_stays(run: Path) -> None:
    furnish(run)
    rubbish = find_rubbish(run, KINDS)
    done = transcoder(run, 0)
    new = done / "checkpoints" / "step-000000025"
    shutil.copytree(done / "checkpoints" / "step-000000020", new)
    shutil.rmtree(transcoder(run, 1) / "checkpoints" / ".step-000000015.77.tmp")
    collect(run, rubbish)
    assert [path.name for path in (done / "checkpoints").iterdir()] == ["step-000000025"]


def test_what_is_needed_again_since_it_was_listed_stays(run: Path) -> None:
    rubbish = find_rubbish(run, KINDS)
    before = files(run)
    shutil.rmtree(transcoder(run, 0) / "final")
    assert collect(run, rubbish) == ([], [])
    assert {file for file in before if "/checkpoints/" in file} <= files(run)


@pytest.mark.parametrize("harm", ["weights", "digests", "no weights"])
def test_checkpoints_stay_where_the_final_weights_are_not_sound(run: Path, harm: str) -> None:
    rubbish, final = find_rubbish(run, KINDS), transcoder(run, 0) / "final"
    if harm == "weights":
        content = (final / "weights.safetensors").read_bytes()
        (final / "weights.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        (final / {"digests": "sha256.json", "no weights": "weights.safetensors"}[harm]).unlink()
    gone, (why,) = collect(run, rubbish)
    assert gone == [] and "checkpoints stays: " in why and str(final) in why
    assert len(list((transcoder(run, 0) / "checkpoints").iterdir())) == 2


def test_what_was_just_written_is_left_to_its_writer(run: Path) -> None:
    furnish(run)
    lately = time.time() - QUIET_S / 2
    half = transcoder(run, 1) / "checkpoints" / ".step-000000015.77.tmp" / "state.safetensors"
    progress = run / "evaluations" / "test" / "splice.progress.safetensors"
    for path in (run / ".index.sqlite.77.tmp", progress, half):
        os.utime(path, (lately, lately))
    assert listed(run).keys() == {"checkpoints"}


@pytest.mark.parametrize("what", ["tokens", "transcoders/L00/checkpoints", "transcoders/L00",
                                  "evaluations", "evaluations/test"])  # fmt: skip
def test_nothing_behind_a_link_is_touched(run: Path, tmp_path: Path, what: str) -> None:
    furnish(run)
    all_done(run)
    place = run / what.replace("L00", transcoder(run, 0).name)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(place, elsewhere)
    place.symlink_to(elsewhere)
    before = files(elsewhere)
    rubbish = find_rubbish(run, KINDS)
    assert not [path for one in rubbish for path in one.paths if (run / path).is_relative_to(place)]
    collect(run, rubbish)
    assert files(elsewhere) == before and place.is_symlink()


def test_a_link_within_a_checkpoint_is_removed_and_not_followed(run: Path, tmp_path: Path) -> None:
    put(tmp_path / "precious")
    link = transcoder(run, 0) / "checkpoints" / "step-000000015" / "link"
    link.symlink_to(tmp_path / "precious")
    collect(run, find_rubbish(run, KINDS))
    assert (tmp_path / "precious").exists() and not link.is_symlink()


def call(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(cli, ["registry", "gc", *words])


def test_without_yes_nothing_is_deleted_and_costs_are_told(run: Path) -> None:
    furnish(run)
    before = files(run)
    shown = call(str(run))
    assert shown.exit_code == 0 and files(run) == before
    assert "nothing was deleted, --yes deletes it" in shown.output
    assert COSTS["checkpoints"] in shown.output and COSTS["tokens"] not in shown.output
    as_json = json.loads(call("--root", str(run.parent), "--json").stdout)
    assert not as_json["deleted"] and files(run) == before
    assert as_json["bytes"] == sum(one["bytes"] for one in as_json["rubbish"])
    gone = json.loads(call(str(run), "--json", "--yes", "--only", "leftovers").stdout)
    assert gone["deleted"] and [one["kind"] for one in gone["rubbish"]] == ["leftovers"]
    assert {one["kind"] for one in as_json["rubbish"]} == {"leftovers", *listed(run)}


def test_a_run_that_somebody_works_on_is_left_alone(run: Path) -> None:
    before = files(run)
    with run_lock(run):  # its status does not tell
        shown = call(str(run), "--yes")
        assert shown.exit_code == 1 and "is being worked on by process" in shown.output
    StatusFile(run, 20).update(Snapshot(20))
    shown = call(str(run), "--yes")
    assert shown.exit_code == 0 and f"{run} is being worked on" in shown.output
    assert files(run) == before


def test_a_run_that_cannot_be_read_keeps_all_and_hides_none_of_the_others(run: Path) -> None:
    shutil.copytree(run, run.parent / "other")
    (run / "resolved.json").write_text("{")
    before = files(run)
    shown = call("--root", str(run.parent), "--yes")
    assert shown.exit_code == 1 and "resolved.json is damaged" in shown.output
    assert files(run) == before and find_rubbish(run.parent / "other", KINDS) == []


def test_a_disk_that_refuses_is_one_message(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(gc, "remove_folder", refuse)
    with pytest.raises(ConfigError, match="cannot be written"):
        collect(run, find_rubbish(run, KINDS))


def test_what_went_before_the_disk_refused_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnish(run)
    all_done(run)
    size = next(one.bytes for one in find_rubbish(run, KINDS) if one.kind == "checkpoints")

    def refuse(path: Path) -> None:
        if "window" in path.name:
            raise PermissionError(13, "Permission denied", str(path))
        delete(path)

    delete = gc._delete
    monkeypatch.setattr(gc, "_delete", refuse)
    shown = json.loads(call(str(run), "--yes", "--json").stdout)
    assert "cannot be written" in shown["refused"][0]
    assert [one["kind"] for one in shown["rubbish"]] == ["checkpoints", "tokens"]
    assert shown["rubbish"][0]["bytes"] == size and shown["rubbish"][1]["paths"] == [
        "tokens/end.json"
    ]


def test_somebodys_own_files_are_no_leftovers_and_those_that_are_get_named(run: Path) -> None:
    for own in (".tmp/mine", "notes/.draft.tmp/x", ".a.tmp", "keep.1.tmp"):
        put(run / own)
    put(run / ".index.sqlite.77.tmp")
    put(run / ".status.json.tmp")
    put(run / "transcoders" / ".final.77.old.tmp" / "weights.safetensors")
    age(run)
    assert set(listed(run, "leftovers")["leftovers"]) == {
        ".index.sqlite.77.tmp", ".status.json.tmp", "transcoders/.final.77.old.tmp",
    }  # fmt: skip
    shown = call(str(run), "--only", "leftovers").output
    assert f"  {run}/.index.sqlite.77.tmp" in shown and "draft" not in shown


def test_tokens_stay_where_a_transcoder_may_have_to_be_trained_anew(run: Path) -> None:
    furnish(run)
    all_done(run)
    (transcoder(run, 0) / "final" / "weights.safetensors").write_bytes(b"torn")
    gone, kept = collect(run, find_rubbish(run, ("tokens",)))
    assert gone == [] and len(kept) == 1 and "tokens stays: " in kept[0]
    assert (run / "tokens" / "end.json").exists()


def test_a_run_that_is_named_twice_or_linked_counts_once(run: Path) -> None:
    furnish(run)
    once = json.loads(call(str(run), "--json").stdout)
    assert json.loads(call(str(run), str(run), "--json").stdout) == once
    (run.parent / "alias").symlink_to(run)
    assert json.loads(call("--root", str(run.parent), "--json").stdout) == once
    refused = call("--root", str(run.parent / "nowhere"))
    assert refused.exit_code == 2 and "there is no such folder" in refused.output
