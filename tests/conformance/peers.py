"""How the other tools are asked what they make of an export."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.peers_environment import peers_variables

HERE = Path(__file__).parent


def ask(python: Path, program: str, cases: Path) -> dict[str, Any]:
    """What check_`program`.py finds in the cases."""
    done = subprocess.run(
        # -I: neither our packages nor those of the user
        [str(python), "-I", str(HERE / f"check_{program}.py"), str(cases)],
        capture_output=True,
        text=True,
        env=peers_variables(cases.parent, threads=1),
        cwd=cases.parent,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)
