"""A run that is sent to a cluster as a Ray job: `ray job submit -- mtc-orchestrate run …`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.nodes import Nodes, with_token
from tests.e2e.runs import finals

pytestmark = pytest.mark.cluster
SPLIT = ("--set", "resources.topology=split")


def test_a_job_joins_the_cluster_that_it_was_sent_to(longer, token, tmp_path):
    manifest, reference, _ = longer
    nodes = Nodes(token)
    try:
        nodes.start("head", 3, dashboard=True)
        program = Path(sys.executable).parent
        command = [program / "mtc-orchestrate", "run", manifest, "--root", tmp_path, *SPLIT]
        done = subprocess.run(
            [program / "ray", "job", "submit", "--address", nodes.dashboard, "--", *command],
            env=with_token(token),
            capture_output=True,
            text=True,
            timeout=180,
        )
    finally:
        nodes.down()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "joined the Ray cluster at" in done.stdout and "mean FVU over 4" in done.stdout
    assert finals(tmp_path / "small") == finals(reference)
