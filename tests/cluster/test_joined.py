"""A cluster that was joined: runs end there, are killed there, starve there, and leave no trace."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.cluster.runs import OUT_OF_MEMORY, TOO_LARGE, VAST, Started, run
from tests.e2e.runs import finals, write_manifest
from tests.ray.harm import steps_on, trainer_of, until

pytestmark = pytest.mark.cluster


def untouched(somebody) -> bool:
    """Nothing of ours is left; Ray takes a moment to notice that a driver was killed."""

    def gone():
        state = somebody.say()
        return not state["trainers"] and not state["groups"] and state["free_cpus"] == 2

    return until(gone, "the end of what a run had started", limit_s=30)


def test_killed_interrupted_and_continued_a_run_ends_with_the_same_bits(
    longer, nodes, somebody, token, tmp_path
):
    manifest, reference, _ = longer
    folder = tmp_path / "small"
    first = folder / "transcoders" / sorted(os.listdir(reference / "transcoders"))[0]

    killed = Started(manifest, tmp_path, "--address", nodes.address, token=token)
    trainer = until(lambda: trainer_of(first), "a trainer")
    steps_on(folder, 1)
    os.kill(trainer, signal.SIGKILL)
    until(lambda: trainer_of(first) not in (None, trainer), "another trainer")
    steps_on(folder, 1)
    killed.send(signal.SIGKILL)
    ended = killed.end()
    assert ended.clean, ended
    assert "died: its process was killed, or crashed" in ended.out and "memory;" not in ended.out
    assert untouched(somebody)

    interrupted = Started(manifest, tmp_path, token=token, env={"RAY_ADDRESS": nodes.address})
    steps_on(folder, 1)
    interrupted.send(signal.SIGINT)
    ended = interrupted.end()
    assert ended.code == 130 and ended.clean, ended
    assert f"joined the Ray cluster at {nodes.address}" in ended.out
    assert untouched(somebody)

    ended = run(manifest, tmp_path, "--address", nodes.address, token=token)
    assert ended.code == 0 and ended.clean and not ended.err, ended
    assert "warning" not in ended.out
    assert finals(folder) == finals(reference)
    assert untouched(somebody)


def test_a_cluster_without_room_is_told_with_what_there_is_and_what_to_change(
    longer, nodes, somebody, token, tmp_path
):
    manifest, _, _ = longer
    address = ("--address", nodes.address)
    more = ("--set", "resources.cells=2", "--set", "resources.threads=2")
    ended = run(manifest, tmp_path, *address, *more, token=token, altered={"placement_s": 3})
    assert ended.code == 2 and ended.clean, ended
    assert re.fullmatch(
        r"the Ray cluster has no room for 2 cells, which need 2 × \(2 CPU \+ \d+ MB memory\), each "
        r"on one node \(waited 3 s\); its only node has 2 of 2 CPU free, 90.0 TB of 90.0 TB memory "
        r"free. Add nodes, or lower resources.cells, or for a run that has not begun, lower "
        r"resources.threads\n",
        ended.err,
    ), ended
    assert untouched(somebody)


def test_room_that_others_have_taken_is_told_from_room_that_is_not_there(
    longer, nodes, somebody, token, tmp_path
):
    manifest, _, _ = longer
    somebody.say("take 2")
    options = ("--address", nodes.address)
    ended = run(manifest, tmp_path, *options, token=token, altered={"placement_s": 3})
    somebody.say("give")
    assert ended.code == 2 and ended.clean, ended
    assert "has no room for a cell, which needs 1 CPU + " in ended.err, ended
    assert "its only node has 0 of 2 CPU free" in ended.err
    assert ended.err.endswith("Wait for the other jobs that use the rest, or end them\n")
    assert untouched(somebody)


def test_a_store_that_cannot_hold_what_a_producer_publishes_is_told_before_it_is_filled(
    longer, nodes, somebody, token, tmp_path
):
    manifest, _, _ = longer
    split = ("--set", "resources.topology=split", "--set", "resources.prefetch_steps=1000")
    ended = run(manifest, tmp_path, "--address", nodes.address, *split, token=token)
    assert ended.code == 2 and ended.clean, ended
    assert re.fullmatch(
        r"a producer publishes up to \d+ MB, and the object store of 1 of 1 nodes has 83.9 MB for "
        r"as many as 1 of them; lower resources.prefetch_steps, or start them with a larger "
        r"--object-store-memory\n",
        ended.err,
    ), ended
    assert untouched(somebody)


def test_weights_that_no_node_can_hold_end_the_run_with_the_keys(
    model, nodes, somebody, token, tmp_path
):
    manifest = write_manifest(tmp_path, model, transcoders=TOO_LARGE)
    ended = run(manifest, tmp_path, "--address", nodes.address, token=token, altered=VAST)
    assert ended.code == 2 and ended.clean, ended
    assert re.fullmatch(OUT_OF_MEMORY, ended.err), ended
    assert untouched(somebody)
