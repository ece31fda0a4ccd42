"""Clusters that lose nodes, their head or our own node, and nodes that lack what a cell needs."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

import orchestrator
from tests.cluster.nodes import Nodes
from tests.cluster.runs import Started, hiding, run
from tests.e2e.runs import finals, uninterrupted, write_manifest
from tests.ray.harm import newest_step, steps_on, trainer_of, until

pytestmark = pytest.mark.cluster
TWO = ("--set", "resources.topology=fused", "--set", "resources.cells=2")


@pytest.fixture(scope="module")
def much_longer(model, tmp_path_factory):
    """Long enough for two nodes to be lost, one after the other: that takes seconds to be noticed,
    and as many to be made good, in which the other cell goes on."""
    return uninterrupted(
        tmp_path_factory.mktemp("much_longer"), model, tokens=256 * 1000, checkpoint_minutes=0.01
    )


@pytest.fixture
def three(token):
    """Nodes `head`, `node1`, `node2` with a CPU each."""
    nodes = Nodes(token)
    try:
        for name in ("head", "node1", "node2"):  # at once they would choose the same ports
            nodes.start(name, 1)
        yield nodes
    finally:
        nodes.down()


@pytest.fixture(scope="module")
def open_door():
    """A cluster without tokens; its head has no CPU, so that every cell is on another node."""
    nodes = Nodes(None)
    try:
        nodes.start("head", 0)
        yield nodes
    finally:
        nodes.down()


@pytest.fixture
def home(tmp_path):
    """A home folder without a token."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home")}


def lose_a_node(nodes: Nodes, run_folder: Path) -> None:
    """Kill the node of a trainer that is not on the head, once it has saved something there."""

    def victim():
        pids = {folder: trainer_of(folder) for folder in run_folder.glob("transcoders/*")}
        names = ((folder, nodes.node_of(pid)) for folder, pid in pids.items() if pid)
        # A trainer outlives its node for a moment.
        away = ((folder, name) for folder, name in names if name != "head" and nodes.alive(name))
        return next(away, None)

    folder, name = until(victim, "a trainer that is not on the head")
    steps_on(folder, 1)
    nodes.kill(name)


def test_a_cell_goes_on_on_another_node_or_says_what_is_missing(
    much_longer, three, token, tmp_path
):
    """One of three nodes dies, then one of two; then the one that is left brings it to its end."""
    manifest, reference, _ = much_longer
    address, folder = ("--address", three.address), tmp_path / "small"
    altered = {"placement_s": 6}
    started = Started(manifest, tmp_path, *address, *TWO, token=token, altered=altered)
    lose_a_node(three, folder)
    lose_a_node(three, folder)
    ended = started.end()
    assert ended.code == 3 and ended.clean and ended.err == "", ended
    assert ended.out.count("it goes on from its last checkpoint in a new process") == 2, ended
    assert "stopped: the Ray cluster has no room for 2 cells, which need" in ended.out, ended
    assert "its only node has" in ended.out and "Add nodes, or lower resources" in ended.out
    assert ended.out.endswith("the same command continues the run\n")
    assert "[state-dump]" not in (folder / "log.txt").read_text()  # of a dead node

    one = ("--set", "resources.cells=1")
    ended = run(manifest, tmp_path, *address, *one, token=token)
    assert ended.code == 0 and ended.clean, ended
    assert finals(folder) == finals(reference)
    assert three.alive("head")


def test_nodes_that_lack_files_or_packages_are_named(longer, open_door, home, tmp_path):
    """And whoever joins a cluster without tokens is warned, and needs none."""
    manifest, _, _ = longer
    root = tmp_path / "runs"
    root.mkdir()
    address = ("--address", open_door.address)

    open_door.start("blind", cpus=1, before=hiding(root))
    ended = run(manifest, root, *address, env=home)
    open_door.kill("blind")
    assert ended.code == 2 and ended.clean, ended
    assert "warning: this cluster has no token authentication" in ended.out
    assert ended.err.startswith(
        f"trainer-0[L00-L02] runs on {platform.node()}, which has no {root}"
    )
    assert ": every node needs the run folder and the model under the same" in ended.err
    assert "without --address" in ended.err and ended.err.count("\n") == 1

    open_door.start("bare", cpus=1, before=hiding(Path(orchestrator.__file__).parent))
    ended = run(manifest, root, *address, env=home)
    open_door.kill("bare")
    assert ended.code == 2 and ended.clean, ended
    assert "trainer-0[L00-L02]: the node that Ray gave it lacks" in ended.err
    assert "install mtc-orchestrator" in ended.err and ended.err.count("\n") == 1


def test_a_cluster_that_goes_away_ends_the_run_in_one_message(model, open_door, home, tmp_path):
    """First the node on which the driver runs; then, with the driver on another, the head. The last
    test that has this cluster."""
    manifest = write_manifest(tmp_path, model, tokens="30M")
    open_door.start("another", 1)
    for program, message in (
        ("raylet", "the Ray node on which this command runs has left its cluster"),
        ("gcs_server", f"Ray's head at {open_door.address} has not answered for "),
    ):
        options = {"env": home, "altered": {"gone_s": 2}}
        started = Started(manifest, tmp_path, "--address", open_door.address, **options)
        steps_on(tmp_path / "small", 1)
        open_door.kill("head", program)
        ended = started.end()
        assert ended.code == 3 and ended.clean and ended.err == "", ended
        last = ended.out.splitlines()[-1]
        assert last.startswith("stopped: ") and message in last, ended
        assert last.endswith("the same command continues the run")


def test_cells_of_a_node_that_is_drained_save_before_it_is_gone(much_longer, token, tmp_path):
    """Their checkpoints would else be an hour apart."""
    manifest, reference, _ = much_longer
    nodes, folder = Nodes(token), tmp_path / "small"
    rarely = ("--set", "resources.checkpoint_minutes=60")
    try:
        nodes.start("head", 1)
        nodes.start("leaving", 1)
        started = Started(
            manifest, tmp_path, "--address", nodes.address, *TWO, *rarely, token=token
        )
        drained = until(lambda: trainer_on(nodes, folder, "leaving"), "a trainer on that node")
        nodes.drain("leaving", seconds=300)
        until(lambda: newest_step(drained) > 0, "a checkpoint")
        saved = newest_step(drained)
        nodes.kill("leaving")
        nodes.start("another", 1)
        ended = started.end()
    finally:
        nodes.down()
    assert ended.code == 0 and ended.clean, ended
    assert "saves: its node is to be taken away in 2" in ended.out, ended
    assert "died: its node is gone, or cannot be reached; it goes on from its last" in ended.out, (
        ended
    )
    assert finals(folder) == finals(reference) and saved > 0


def trainer_on(nodes: Nodes, run_folder: Path, name: str) -> Path | None:
    """The folder of a transcoder that is trained on a node."""
    pids = {folder: trainer_of(folder) for folder in run_folder.glob("transcoders/*")}
    return next((f for f, pid in pids.items() if pid and nodes.node_of(pid) == name), None)
