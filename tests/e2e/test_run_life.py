"""What happens around training: mistakes found late, two drivers at once, what is left to read."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from click.testing import CliRunner, Result

from mtc_core import load_suite
from mtc_core.errors import DataError, MtcError
from orchestrator.cli import cli
from orchestrator.local_backend import LocalBackend
from orchestrator.planning.inventory import Inventory
from orchestrator.run_folder.lock import NAME as LOCK
from orchestrator.run_folder.lock import run_lock
from orchestrator.status_file import NAME as STATUS
from tests.cluster.runs import hiding, run
from tests.e2e.runs import SignalAfter, finals, run_here, run_in_child, write_manifest

ONE_PAIR = "  - {layers: 0, source: resid_mid, target: mlp_out}"


def command(*words) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def small(folder: Path, model: Path, **changes) -> Path:
    """A manifest of one transcoder and a few steps."""
    return write_manifest(
        folder, model, **{"tokens": 256 * 8, "transcoders": ONE_PAIR, "threads": 1} | changes
    )


def corpus(path: Path) -> str:
    lines = [json.dumps({"text": topics[name]}) for name in sorted(topics)[:40]]
    path.write_text("\n".join(lines))
    return f"data.path={path}"


def test_a_mistyped_text_leaves_nothing_behind(model, tmp_path):
    manifest = small(tmp_path, model)
    result = command("run", manifest, "--root", tmp_path, "--set", "data.path=./corpsu.txt")
    assert result.exit_code == 2 and "./corpsu.txt does not exist" in result.output
    assert not (tmp_path / "small").exists()


def test_mistakes_found_after_the_folder_was_begun_can_be_mended(model, tmp_path):
    """A hook that the model lacks, then text with a broken line: each found later than the one
    before, in the same run folder."""
    text = corpus(tmp_path / "text.jsonl")
    whole = (tmp_path / "text.jsonl").read_text()
    (tmp_path / "text.jsonl").write_text(whole + "\n{broken")
    wrong = "  - {source: 0.resid_mid, target: blocks.0.hook_nothing}"
    with pytest.raises(MtcError, match="hook_nothing"):
        run_here(small(tmp_path, model, transcoders=wrong), tmp_path)
    assert (tmp_path / "small" / "resolved.json").exists()
    with pytest.raises(DataError, match=r"text\.jsonl:41: not JSON"):
        run_here(small(tmp_path, model, tokens=256 * 400), tmp_path, text)
    (tmp_path / "text.jsonl").write_text(whole)
    manifest = small(tmp_path, model, tokens=256 * 400)
    lines = [line for line in manifest.read_text().splitlines() if "resid_mid" in line]
    assert lines == [ONE_PAIR]
    code, printed = run_here(manifest, tmp_path, text, "train.tokens=2048")
    assert code == 0, printed
    assert len(load_suite(tmp_path / "small")) == 1
    log = (tmp_path / "small" / "log.txt").read_text()
    assert "replaced a manifest under which nothing was trained" in log
    assert 'data.path: was "python-docs", now' in log


def test_a_source_that_breaks_off_stops_the_run_and_the_same_command_goes_on(
    model, tmp_path, monkeypatch
):
    """No Hub can be reached here: its dataset is a real one of `datasets`, whose reading fails as a
    connection does, until all patience is used up."""
    import datasets

    from mtc_core.tokens import patience, text_hub

    monkeypatch.setattr(patience, "WAITS_S", (0.01, 0.01))
    breaks = [True] * 3

    def examples():
        for number, name in enumerate(sorted(topics)):
            if number == 30 and breaks:
                breaks.pop()
                raise ConnectionResetError("the peer has gone")
            yield {"text": topics[name]}

    monkeypatch.setattr(
        text_hub, "open_dataset", lambda data: datasets.IterableDataset.from_generator(examples)
    )
    monkeypatch.setattr(text_hub, "hub_commit", lambda data: "0" * 40)
    manifest = small(tmp_path, model)
    code, printed = run_here(manifest, tmp_path, "data.path=some/dataset")
    assert code == 3
    assert "stopped: some/dataset: reading broke off after 30 examples: the peer has" in printed
    assert "the same command continues the run" in printed
    code, printed = run_here(manifest, tmp_path, "data.path=some/dataset")
    assert code == 0, printed


def test_a_run_goes_on_when_its_reader_has_gone(model, tmp_path):
    """`run … | head -1`, or a terminal multiplexer that was killed."""
    manifest = small(tmp_path, model)
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "run"]
    with subprocess.Popen(
        [*command, str(manifest), "--root", str(tmp_path), "--backend", "local"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert b"1 of 1 transcoders to train" in run.stdout.readline()
        run.stdout.close()
        assert run.wait(60) == 0 and run.stderr.read() == b""
    assert len(load_suite(tmp_path / "small")) == 1


def test_a_run_goes_on_when_what_it_prints_to_is_full(model, tmp_path):
    """`run … > log`, on another disk."""
    manifest = small(tmp_path, model)
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "run"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*command, str(manifest), "--root", str(tmp_path), "--backend", "local"],
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(load_suite(tmp_path / "small")) == 1


@pytest.mark.parametrize("size", ["200k", "400k", "1m"])
def test_a_disk_that_fills_up_is_told_by_its_place(model, tmp_path, size):
    """While tokens, checkpoints or metrics are written; the plan believed that there was room."""
    manifest = small(tmp_path, model, tokens="10M")
    (tmp_path / "runs").mkdir()
    disk = hiding(tmp_path / "runs", f"mount -t tmpfs -o size={size}")
    options = {"before": disk, "altered": {"free_bytes": 2**50}}
    ended = run(manifest, tmp_path / "runs", "--backend", "local", **options)
    assert ended.code == 3 and ended.clean, ended
    place = tmp_path / "runs" / "small"
    left = r"\(\d[\d.]* k?B left, and the rest of this run needs "
    said = rf"stopped: the disk of {place} is full {left}"
    assert re.search(rf"{said}\d\.\d MB\): free \d\.\d MB there\n", ended.out), ended
    assert "the same command continues the run" in ended.out


def test_tokens_outlive_a_manifest_under_which_nothing_was_trained(model, tmp_path):
    manifest = small(tmp_path, model, checkpoint_minutes=60)
    assert run_in_child(manifest, tmp_path, SignalAfter(1, 0), "train.lr=2e-3") == -signal.SIGKILL
    window = tmp_path / "small" / "tokens" / "window-00000.ids.npy"
    written = window.stat()
    code, printed = run_here(manifest, tmp_path)
    assert code == 0, printed
    assert "replaced a manifest" in (tmp_path / "small" / "log.txt").read_text()
    assert (window.stat().st_ino, window.stat().st_mtime_ns) == (
        written.st_ino,
        written.st_mtime_ns,
    )


def test_a_hook_that_the_model_lacks_is_told_before_any_text_is_read(model, tmp_path):
    wrong = "  - {source: 0.resid_mid, target: blocks.0.hook_nothing}"
    with pytest.raises(MtcError, match="hook_nothing"):
        run_here(small(tmp_path, model, transcoders=wrong), tmp_path)
    assert not (tmp_path / "small" / "tokens").exists()


def test_text_that_changed_before_anything_was_trained_is_read_anew(model, tmp_path):
    text = corpus(tmp_path / "text.jsonl")
    whole = (tmp_path / "text.jsonl").read_text()
    (tmp_path / "text.jsonl").write_text(whole + "\n{broken")
    manifest = small(tmp_path, model, tokens=256 * 400)
    with pytest.raises(DataError, match=r"text\.jsonl:41: not JSON"):
        run_here(manifest, tmp_path, text)
    (tmp_path / "text.jsonl").write_text(whole)
    number = signal.SIGINT
    assert run_in_child(manifest, tmp_path, SignalAfter(20, 0, number), text) == 128 + number
    assert "it is read anew" in (tmp_path / "small" / "log.txt").read_text()
    (tmp_path / "text.jsonl").write_text(whole + "\n")  # now there is a checkpoint made from it
    assert run_in_child(manifest, tmp_path, SignalAfter(20, 0, number), text) == 128 + number
    assert (tmp_path / "small" / "log.txt").read_text().count("it is read anew") == 1


def test_a_second_driver_is_refused_and_touches_nothing(reference):
    manifest, run, _ = reference
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    with run_lock(run):
        result = command("run", manifest, "--root", run.parent)
        assert result.exit_code == 2
        assert "is being worked on by process" in result.output
        assert command("status", run).exit_code == 0
        assert command("metrics", run).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_finished_run_needs_neither_its_text_nor_memory(model, tmp_path, monkeypatch):
    manifest = small(tmp_path, model)
    text = corpus(tmp_path / "text.jsonl")
    assert run_here(manifest, tmp_path, text)[0] == 0
    before = finals(tmp_path / "small")
    (tmp_path / "text.jsonl").unlink()
    monkeypatch.setattr(LocalBackend, "inventory", lambda *_: Inventory(1, 0, 0))
    code, printed = run_here(manifest, tmp_path, text)
    assert code == 0 and "nothing left to train" in printed
    assert finals(tmp_path / "small") == before
    assert not (tmp_path / "small" / LOCK).exists()


def test_the_log_tells_the_whole_run(reference):
    manifest, run, printed = reference
    log = (run / "log.txt").read_text()
    told = ["start: mtc-orchestrator", f"manifest {manifest}", "4 of 4 transcoders to train"]
    told += ["INFO tokens", "INFO loading", "INFO training", "INFO calibrating"]
    told += ["INFO testing", "INFO done", "tokens/s for the whole suite", "end: exit code 0"]
    places = [log.find(text) for text in told]
    assert -1 not in places and places == sorted(places), log
    assert next(line for line in printed.splitlines() if "forward passes in all" in line) in log


def test_an_interrupted_run_says_so_and_frees_its_lock(model, tmp_path):
    manifest = small(tmp_path, model, tokens=256 * 400)
    assert run_in_child(manifest, tmp_path, SignalAfter(2, 0, signal.SIGTERM)) == 143
    assert not (tmp_path / "small" / LOCK).exists()
    log = (tmp_path / "small" / "log.txt").read_text()
    assert "interrupted by SIGTERM" in log and log.endswith("end: exit code 143\n")


def test_a_status_that_cannot_be_written_stops_no_run(model, tmp_path):
    manifest = small(tmp_path, model)
    (tmp_path / "small" / STATUS / "in the way").mkdir(parents=True)
    assert run_here(manifest, tmp_path)[0] == 0
    log = (tmp_path / "small" / "log.txt").read_text()
    assert log.count("status.json cannot be written") == 1


def test_what_stands_in_the_way_of_the_folder_is_one_message(model, tmp_path):
    manifest = small(tmp_path, model)
    (tmp_path / "small" / "log.txt").mkdir(parents=True)
    for root in (tmp_path, tmp_path / ("x" * 300), manifest):
        result = command("run", manifest, "--root", root)
        assert result.exit_code == 2, result.output
        assert "choose another --root" in result.output
    assert command("status", "x" * 300).exit_code == 2
    assert command("list", "--root", "x" * 300).exit_code in (0, 2)


def test_a_run_is_done_when_final_is_there_and_the_unfinished_are_told(reference, tmp_path):
    run = tmp_path / "small"
    shutil.copytree(reference[1], run)
    first, second, *_ = sorted((run / "transcoders").iterdir())
    shutil.rmtree(first / "final")  # as if killed between evaluation.json and final/
    shutil.rmtree(second / "final")
    (second / "failed.json").write_text(json.dumps({"reason": "it diverged", "step": 3}))
    state = json.loads(command("status", run, "--json").output)
    states = [row["state"] for row in state["transcoders"]]
    assert sorted(states) == ["done", "done", "failed", "waiting"]
    figures = {row["id"]: row for row in json.loads(command("metrics", run, "--json").output)}
    specs = json.loads((run / "resolved.json").read_text())["specs"]
    assert figures[first.name] == {"id": first.name, "state": "unfinished", **specs[first.name]}
    assert figures[second.name]["state"] == "failed"
    assert figures[second.name]["reason"] == "it diverged"
    assert [row["state"] for row in figures.values()].count("done") == 2
    assert "2/4" in command("list", "--root", tmp_path).output


def test_a_torn_last_line_of_metrics_is_left_out_and_a_damaged_one_is_named(reference, tmp_path):
    run = tmp_path / "small"
    shutil.copytree(reference[1], run)
    path = next(run.glob("transcoders/L01.*/metrics.jsonl"))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines, b'{"step": 4\xff']))
    shown = json.loads(command("metrics", run, "L01", "--json").output)
    assert len(shown) == len(lines)
    path.write_bytes(b"\n".join([lines[0], b'{"step": 4\xff', *lines[1:]]))
    result = command("metrics", run, "L01")
    assert result.exit_code == 2 and f"{path}:2: damaged" in result.output


def test_a_checkpoint_that_cannot_be_written_keeps_none_of_the_others(model, tmp_path, monkeypatch):
    from orchestrator.cells import transcoder_run

    write = transcoder_run.write_checkpoint
    refused = []

    def write_or_refuse(folder, *rest):
        refused.append(folder) if not refused else None
        if folder == refused[0]:
            raise OSError(28, "No space left on device", str(folder))
        write(folder, *rest)

    monkeypatch.setattr(transcoder_run, "write_checkpoint", write_or_refuse)
    code, printed = run_here(write_manifest(tmp_path, model), tmp_path)
    assert code == 3 and "the disk of" in printed
    saved = {path.parts[-3] for path in tmp_path.glob("small/transcoders/*/checkpoints/step-*")}
    assert len(saved) == 3 and refused[0].parent.name not in saved
