"""The quickstart by the three rules for extreme rows, and with a skip connection: what each does to
the reconstruction, and to the model that reads it.

    python benchmarks/variants.py [MANIFEST] [--root runs] [--tokens 4096]

Runs a manifest (the quickstart) once for each variant, splices as many test tokens, and prints, by
layer on held-out test text: FVU of ordinary and of all rows, L0, what the transcoder in place of
its target adds to the model's cross-entropy (CE +), the same with extreme rows left as they are,
KL, CE recovered against mean ablation; and, last, all transcoders together.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from orchestrator.commands.terminal import make_console
from orchestrator.driver import run
from orchestrator.local_backend import LocalBackend
from orchestrator.prepare import Request

VARIANTS = {
    "mask": ["train.extreme=mask"],
    "bound": ["train.extreme=bound"],
    "keep": ["train.extreme=keep"],
    "mask, skip": ["train.extreme=mask", "defaults.skip=true"],
}
HEADS = (
    "variant", "FVU ordinary rows", "FVU all rows", "L0", "CE +", "extreme rows left", "KL",
    "recovered (mean)", "together: CE +", "extreme left", "KL",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", nargs="?", type=Path, default="manifests/quickstart.yaml")
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--tokens", type=int, default=4096)
    args = parser.parse_args()
    lines, clean = [], ""
    for variant, overrides in VARIANTS.items():
        name = f"variant-{variant.replace(', ', '-')}"
        overrides = [f"name={name}", f"eval.spliced_tokens={args.tokens}", *overrides]
        code = run(Request(args.manifest, args.root, overrides), LocalBackend(), make_console())
        if code:
            return code
        folder = args.root / name
        splice = json.loads((folder / "evaluations" / "test" / "splice.json").read_text())
        clean = f"{splice['tokens']:,} tokens spliced; the model's own CE {splice['ce_clean']:.3f}"
        lines.append(f"| {variant} | {' | '.join(_cells(folder, splice))} |")
    print(f"\n{clean}\n\n| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    print("\n".join(lines))
    return 0


def _cells(folder: Path, splice: dict[str, Any]) -> list[str]:
    ids = list(splice["transcoders"])
    rows = [json.loads((folder / "transcoders" / id / "evaluation.json").read_text()) for id in ids]
    each = list(splice["transcoders"].values())
    joint = splice["joint"]
    return [
        " ".join(f"{row['ordinary']['fvu']:.3f}" for row in rows),
        " ".join(f"{row['all']['fvu']:.3f}" for row in rows),
        " ".join(f"{row['ordinary']['l0']:.0f}" for row in rows),
        " ".join(f"{one['ce_increase']:.3f}" for one in each),
        " ".join(f"{one['extreme_left']['ce_increase']:.3f}" for one in each),
        " ".join(f"{one['kl']:.3f}" for one in each),
        " ".join(_or_dash(one["ce_recovered_mean"]) for one in each),
        f"{joint['ce_increase']:.3f}",
        f"{joint['extreme_left']['ce_increase']:.3f}",
        f"{joint['kl']:.3f}",
    ]


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
