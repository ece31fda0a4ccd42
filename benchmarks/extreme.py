"""What the three rules for extreme rows do to ordinary rows and to all rows.

    python benchmarks/extreme.py [MANIFEST] [--root runs]

Runs a manifest (the quickstart) once with each of `train.extreme: mask | bound | keep`, and prints
FVU by layer on ordinary and on all rows of the held-out test text, and L0 over all rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from orchestrator.commands.terminal import make_console
from orchestrator.driver import run
from orchestrator.local_backend import LocalBackend
from orchestrator.prepare import Request

RULES = ("mask", "bound", "keep")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", nargs="?", type=Path, default="manifests/quickstart.yaml")
    parser.add_argument("--root", type=Path, default=Path("runs"))
    args = parser.parse_args()
    lines = []
    for rule in RULES:
        overrides = [f"name=extreme-{rule}", f"train.extreme={rule}"]
        code = run(Request(args.manifest, args.root, overrides), LocalBackend(), make_console())
        if code:
            return code
        folder = args.root / f"extreme-{rule}" / "transcoders"
        rows = [json.loads(p.read_text()) for p in sorted(folder.glob("*/evaluation.json"))]
        ordinary = " ".join(f"{row['ordinary']['fvu']:.3f}" for row in rows)
        everything = " ".join(f"{row['all']['fvu']:.3f}" for row in rows)
        l0 = " ".join(f"{row['all']['l0']:.0f}" for row in rows)
        lines.append(f"| {rule} | {ordinary} | {everything} | {l0} |")
    print("\n| rule | FVU ordinary, by layer | FVU all rows | L0 all rows |\n|---|---|---|---|")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
