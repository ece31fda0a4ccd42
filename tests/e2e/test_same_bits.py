"""A manifest gives the same weights however it was brought to its end: whole final/ folders."""

import random
import signal

import pytest

from tests.e2e.runs import KillInCheckpoint, SignalAfter, finals, run_in_child, write_manifest

ALONE = {
    "L00.resid_mid-L00.mlp_out": "  - {layers: 0, source: resid_mid, target: mlp_out}",
    "L01.resid_mid-L01.mlp_out": "  - {layers: 1, source: resid_mid, target: mlp_out}",
    "L00.resid_post-L02.resid_mid": "  - {source: 0.resid_post, target: 2.resid_mid, k: 6}",
}


def test_killed_at_five_random_moments_and_inside_a_checkpoint(reference, model, tmp_path):
    _, uninterrupted, _ = reference
    manifest = write_manifest(tmp_path, model)
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    for _ in range(4):
        sabotage = SignalAfter(rng.randint(1, 7), rng.random() * 0.03)
        assert run_in_child(manifest, tmp_path, sabotage) == -signal.SIGKILL, seed
    sabotage = KillInCheckpoint(rng.randint(1, 5))
    assert run_in_child(manifest, tmp_path, sabotage) == -signal.SIGKILL, seed
    assert run_in_child(manifest, tmp_path) == 0, seed
    assert finals(tmp_path / "small") == finals(uninterrupted), f"seed {seed}"


@pytest.mark.parametrize("id", ALONE)
def test_each_transcoder_alone_equals_itself_in_the_suite(reference, model, tmp_path, id):
    _, together, _ = reference
    manifest = write_manifest(tmp_path, model, name="alone", transcoders=ALONE[id])
    assert run_in_child(manifest, tmp_path) == 0
    alone = finals(tmp_path / "alone")
    assert len(alone) == 5 and all(name.startswith(id) for name in alone)
    assert alone == {k: v for k, v in finals(together).items() if k in alone}


def test_two_threads_give_the_same_bits_as_two_threads_interrupted(model, tmp_path):
    manifest = write_manifest(tmp_path, model, name="whole", threads=2, tokens=256 * 12)
    assert run_in_child(manifest, tmp_path) == 0
    manifest = write_manifest(tmp_path, model, name="killed", threads=2, tokens=256 * 12)
    assert run_in_child(manifest, tmp_path, SignalAfter(5, 0.01)) == -signal.SIGKILL
    assert run_in_child(manifest, tmp_path) == 0
    assert finals(tmp_path / "killed") == finals(tmp_path / "whole")


def test_the_cadence_of_checkpoints_leaves_no_trace(reference, model, tmp_path):
    _, often, _ = reference
    manifest = write_manifest(tmp_path, model, checkpoint_minutes=60)
    assert run_in_child(manifest, tmp_path) == 0
    assert finals(tmp_path / "small") == finals(often)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_and_running_again_continues(reference, model, tmp_path, number):
    _, uninterrupted, _ = reference
    manifest = write_manifest(tmp_path, model, checkpoint_minutes=60)
    assert run_in_child(manifest, tmp_path, SignalAfter(9, 0.01, number)) == 128 + number
    assert len(list((tmp_path / "small").glob("transcoders/*/checkpoints/step-*"))) == 4
    assert run_in_child(manifest, tmp_path) == 0
    assert finals(tmp_path / "small") == finals(uninterrupted)


FREE = {
    "resources.topology": ("fused", 'was "auto", now "fused"'),
    "resources.device": ("auto", 'was "cpu", now "auto"'),
    "resources.cells": ("3", 'was "auto", now 3'),
    "resources.checkpoint_minutes": ("60", "was 0.001, now 60.0"),
    "resources.checkpoint_keep": ("1", "was 2, now 1"),
    "eval.spliced_tokens": ("64", 'was "auto", now 64'),
    "tracking.wandb": ("offline", 'was "off", now "offline"'),
    "tracking.project": ("mine", 'was "mtc-orchestrator", now "mine"'),
    "tracking.entity": ("me", 'was not given, now "me"'),
}


def test_all_that_may_change_between_two_invocations_is_logged_and_changes_no_bit(
    reference, model, tmp_path
):
    _, uninterrupted, _ = reference
    manifest = write_manifest(tmp_path, model)
    assert run_in_child(manifest, tmp_path, SignalAfter(9, 0.01)) == -signal.SIGKILL
    changed = [f"{key}={value}" for key, (value, _) in FREE.items()]
    assert run_in_child(manifest, tmp_path, None, *changed) == 0
    assert finals(tmp_path / "small") == finals(uninterrupted)
    log = (tmp_path / "small" / "log.txt").read_text()
    for key, (_, told) in FREE.items():
        assert f"changed since the run began: {key}: {told}\n" in log
