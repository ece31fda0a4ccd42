"""Reading back what a page holds, and runs for it to tell of."""

from __future__ import annotations

import html
import json
import os
import random
import re
import socket
from pathlib import Path
from typing import Any

from orchestrator.reporting.gather import gather
from orchestrator.reporting.page import report
from orchestrator.run_folder.lock import started

_FIGURE = re.compile(
    r'<div class="plot" id="([\w-]+)"[^>]*></div>\s*<script type="application/json">(.*?)</script>',
    re.DOTALL,
)
LIBRARY = "plotly.js v"  # in its first line


def page_of(run: Path) -> str:
    return report(gather(run), run)


def figures_of(page: str) -> dict[str, dict[str, Any]]:
    """The figures of a page by their keys, as the browser gets them."""
    found = [(key, json.loads(text)) for key, text in _FIGURE.findall(page)]
    assert len(dict(found)) == len(found), "two figures of one key"
    return dict(found)


def words_of(page: str) -> str:
    """What a reader sees without figures: no scripts, no tags."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", bare).split()))


def fabricated_progress(run: Path, number: int, names: list[str], lines: int, seed: int) -> None:
    """`NUMBER.progress.jsonl` with made-up figures: rising counts at growing intervals; its last
    line is half written."""
    rng = random.Random(seed)
    at, rows, stages = 1_795_000_000.0 + 10_000 * number, 0, {name: {} for name in names}
    text = ""
    for step in range(lines):
        at += rng.uniform(1, 5)
        rows += rng.randrange(0, 5000)
        for name, seconds in stages.items():
            mine = ("forward", "publish", "credit", "wait") if name[0] == "p" else (
                "forward", "feed", "train", "checkpoint")  # fmt: skip
            for stage in mine:
                seconds[stage] = seconds.get(stage, 0.0) + rng.random()
        line = {
            "at": at, "phase": "training", "step": step, "rows_trained": rows, "passes": step,
            "stages": stages, "resident_bytes": {name: rng.randrange(2**33) for name in names},
        }  # fmt: skip
        text += json.dumps(line) + "\n"
    path = run / "invocations" / f"{number:04d}.progress.jsonl"
    path.write_text(text + '{"at": 17950')


def set_state(run: Path, state: str, **more: Any) -> None:
    """status.json of a driver that lives; `killed` is one whose process has gone."""
    alive = {"host": socket.gethostname(), "pid": os.getpid(), "updated": 0.0,
             "process_started": started(os.getpid())}  # fmt: skip
    if state == "killed":
        state, alive["process_started"] = "running", -1.0
    (run / "status.json").write_text(json.dumps({"state": state, **alive, **more}))
