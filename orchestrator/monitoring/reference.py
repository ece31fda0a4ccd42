"""The table of metrics in WATCHING.md.

python -m orchestrator.monitoring.reference orchestrator/WATCHING.md    # writes it anew
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator.monitoring.metrics import METRICS

BEGIN, END = (
    "<!-- metrics: python -m orchestrator.monitoring.reference -->",
    "<!-- end of metrics -->",
)


def table() -> Iterator[str]:
    yield "| metric | kind | labels | what it is |"
    yield "|---|---|---|---|"
    for metric in METRICS:
        labels = " ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.exported}` | {metric.kind} | {labels} | {metric.what} |"


def with_table(text: str) -> str:
    """A document with the table between its marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n" + "\n".join(table()) + f"\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
