"""A checkpoint is whole or absent, and a damaged one is passed over."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtc_core.checkpoint import checkpoint_paths, read_checkpoint, read_latest, write_checkpoint
from mtc_core.errors import CheckpointError, TrainingStopped
from mtc_core.trainer import TranscoderTrainer
from mtc_core.transcoder import MatryoshkaTranscoder
from tests.core import small
from tests.core.killed_writer import state as plain_state

ROOT = Path(__file__).parents[2]


def steps(folder):
    return [int(path.name.removeprefix("step-")) for path in checkpoint_paths(folder)]


def test_round_trip_keeps_every_bit_and_training_goes_on(tmp_path):
    trainer = small.trainer(train_changes={"dead_after_tokens": 128})
    small.run(trainer, 0, 7)
    write_checkpoint(tmp_path, 7, trainer.state(), {"metrics_bytes": 123}, keep=2)
    found, complaints = read_latest(tmp_path)
    assert complaints == [] and found.facts == {"step": 7, "metrics_bytes": 123}
    small.same_bits(found.state, trainer.state())
    assert all(found.state[k].dtype == v.dtype for k, v in trainer.state().items())
    resumed = TranscoderTrainer.from_state(trainer.spec, trainer.train, found.state)
    for one in (trainer, resumed):
        small.run(one, 7, 12)
    small.same_bits(resumed.state(), trainer.state())


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (100, 200):
        write_checkpoint(folder, step, plain_state(step), {"metrics_bytes": step}, keep=2)
    return folder


FILES = ("state.safetensors", "facts.json", "sha256.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "extend", "delete"])
def test_damage_is_detected_named_and_the_checkpoint_before_is_used(
    two_checkpoints, tmp_path, name, damage
):
    generator = random.Random(f"{name}{damage}")
    for trial in range(10 if damage in ("flip", "truncate") else 1):
        folder = tmp_path / str(trial)
        shutil.copytree(two_checkpoints, folder)
        path = folder / "step-000000200" / name
        data = bytearray(path.read_bytes())
        at = generator.randrange(len(data))
        match damage:
            case "flip":
                data[at] ^= 1 << generator.randrange(8)
            case "truncate":
                del data[at:]
            case "empty":
                data.clear()
            case "extend":
                data += b" x"
        path.write_bytes(data)
        if damage == "delete":
            path.unlink()
        found, complaints = read_latest(folder)
        assert found.facts["step"] == 100
        small.same_bits(found.state, plain_state(100))
        assert len(complaints) == 1 and "step-000000200" in complaints[0]


@pytest.mark.parametrize("change", ["blank", "line end", "no line end", "indent", "twice", "deep"])
def test_a_digest_file_that_says_the_same_in_other_bytes_is_damaged(
    two_checkpoints, tmp_path, change
):
    """Nothing vouches for it but its form."""
    folder = tmp_path / "c"
    shutil.copytree(two_checkpoints, folder)
    path = folder / "step-000000200" / "sha256.json"
    text = path.read_text()
    changed = {
        "blank": text + " ",
        "line end": text + "\n",
        "no line end": text.removesuffix("\n"),
        "indent": text.replace("  ", " ", 1),
        "twice": text.replace("{", '{\n  "facts.json": "",', 1),
        "deep": "[" * 100_000,
    }[change]
    assert changed != text
    path.write_text(changed)
    found, complaints = read_latest(folder)
    assert found.facts["step"] == 100
    assert len(complaints) == 1 and "step-000000200 is damaged: sha256.json" in complaints[0]


def test_when_all_are_damaged_nothing_is_found_and_each_is_named(two_checkpoints, tmp_path):
    folder = tmp_path / "c"
    shutil.copytree(two_checkpoints, folder)
    for path in checkpoint_paths(folder):
        (path / "facts.json").write_text("{}")
    found, complaints = read_latest(folder)
    assert found is None and len(complaints) == 2
    with pytest.raises(CheckpointError, match=r"facts\.json is damaged"):
        read_checkpoint(checkpoint_paths(folder)[0])
    assert read_latest(tmp_path / "absent") == (None, [])


@pytest.mark.parametrize("step", [300, 200])
def test_a_process_killed_anywhere_in_the_write_leaves_a_usable_checkpoint(tmp_path, step):
    """300 follows 100 and 200 and drops 100; 200 replaces itself."""
    command = [sys.executable, "-m", "tests.core.killed_writer", str(tmp_path), str(step)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    folders = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(folders) > 10, "the hooks saw too few calls to mean anything"
    seen = set()
    for folder in folders:
        for path in checkpoint_paths(folder):
            read_checkpoint(path)  # no half folder under a final name
        found, complaints = read_latest(folder)
        assert complaints == []
        at = found.facts["step"]
        seen.add(at)
        small.same_bits(found.state, plain_state(at))
        assert not list(folder.glob(".*")), "leftovers are removed on reading"
        write_checkpoint(folder, 400, plain_state(400), {}, keep=2)
        assert steps(folder) == [at, 400]
    assert step in seen and seen <= {100, 200, step}
    if step == 300:
        assert 200 in seen and 100 not in seen


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_state_that_is_not_finite_is_never_written(tmp_path, value, dtype):
    write_checkpoint(tmp_path, 1, plain_state(1), {}, keep=2)
    bad = {"empty": torch.empty(0), "W": torch.randn(1000, 301).to(dtype)}
    write_checkpoint(tmp_path / "good", 2, bad, {}, keep=2)
    at = int(torch.randint(bad["W"].numel(), ()))
    bad["W"].view(-1)[at] = value
    with pytest.raises(TrainingStopped, match="W is not finite"):
        write_checkpoint(tmp_path, 2, bad, {}, keep=2)
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    for step in (5, 10, 900, 1000, 20_000):
        write_checkpoint(tmp_path, step, plain_state(step), {}, keep=keep)
    assert steps(tmp_path) == [5, 10, 900, 1000, 20_000][-keep:]


def test_a_damaged_later_checkpoint_does_not_push_out_a_good_one(tmp_path):
    for step in (100, 200):
        write_checkpoint(tmp_path, step, plain_state(step), {}, keep=2)
    (tmp_path / "step-000000200" / "facts.json").write_text("{}")
    write_checkpoint(tmp_path, 150, plain_state(150), {}, keep=1)
    found, complaints = read_latest(tmp_path)
    assert found.facts["step"] == 150 and len(complaints) == 1


SAVE = """
import sys, torch
from mtc_core.held_out import HeldOut
from tests.core import small
torch.set_num_threads(1)
trainer = small.trainer(); small.run(trainer, 0, 3)
HeldOut(trainer, 0).transcoder.save(sys.argv[1])
"""


def test_a_saved_transcoder_has_the_same_bytes_in_every_process(tmp_path):
    for name in "ab":
        subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / name)], cwd=ROOT, check=True)
    MatryoshkaTranscoder.load(tmp_path / "a").save(tmp_path / "c")
    for file in ("config.json", "weights.safetensors"):
        first = (tmp_path / "a" / file).read_bytes()
        assert (tmp_path / "b" / file).read_bytes() == first
        assert (tmp_path / "c" / file).read_bytes() == first, "loading and saving changed it"
    assert json.loads((tmp_path / "a" / "config.json").read_text())["k"] == 5


def test_what_users_lay_beside_checkpoints_is_theirs(two_checkpoints, tmp_path):
    folder = shutil.copytree(two_checkpoints, tmp_path / "checkpoints")
    shutil.copytree(folder / "step-000000100", folder / "step-000000050-best")
    (folder / "step-000000300.tar.gz").write_bytes(b"mine")
    assert steps(folder) == [100, 200]
    write_checkpoint(folder, 300, plain_state(300), {}, keep=1)
    assert steps(folder) == [300] and read_latest(folder)[1] == []
    names = {path.name for path in folder.iterdir()}
    assert names == {"step-000000050-best", "step-000000300.tar.gz", "step-000000300"}
