"""A curve that is too long for a page is thinned while it is read."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

from orchestrator.reporting.curve import LINES, read_curve


def written(folder: Path, count: int) -> Path:
    path = folder / "metrics.jsonl"
    lines = [json.dumps({"step": 10 * n, "tokens": 2560 * n, "fvu": 1.0}) for n in range(count)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_up_to_its_limit_all_of_it(tmp_path: Path) -> None:
    for count in (0, 1, 2, LINES):
        assert [one["step"] for one in read_curve(written(tmp_path, count), [])] == [
            10 * n for n in range(count)
        ]
    assert read_curve(tmp_path / "none.jsonl", []) == []


def test_beyond_it_lines_at_even_distances_and_the_last(tmp_path: Path) -> None:
    for count in (LINES + 1, LINES + 2, *random.sample(range(LINES, 20 * LINES), 5)):
        steps = [one["step"] for one in read_curve(written(tmp_path, count), [])]
        assert steps[0] == 0 and steps[-1] == 10 * (count - 1), count
        assert LINES / 2 <= len(steps) <= LINES + 1, count
        *apart, before_the_last = [b - a for a, b in pairwise(steps)]
        assert len({*apart}) == 1 and 0 < before_the_last <= apart[0], count


def test_damage_is_told_by_its_line_wherever_it_is(tmp_path: Path) -> None:
    path = written(tmp_path, 3 * LINES)
    lines = path.read_text().splitlines()
    lines[2_001] = lines[2_001].replace("tokens", "token")
    path.write_text("\n".join(lines) + '\n{"step"')
    complaints: list[str] = []
    assert read_curve(path, complaints)[-1]["step"] == 10 * (3 * LINES - 1)
    assert complaints == [f"{tmp_path.name}/metrics.jsonl:2002 is damaged"]
