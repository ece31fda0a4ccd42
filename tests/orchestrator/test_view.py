"""What a screen shows of a run at work: every line of it fits, and what went wrong is in sight."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.cells.status import CellStatus, ProducerStatus, TranscoderStatus
from orchestrator.differing import apart_by_id
from orchestrator.snapshot import Snapshot
from orchestrator.suite import Suite
from orchestrator.view import LiveView, PlainView, headline

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def rows(count: int, **fields) -> tuple[TranscoderStatus, ...]:
    return tuple(
        TranscoderStatus(
            id=f"L{layer:02d}.resid_mid-L{layer:02d}.mlp_out-3f2a91c0",
            state="training",
            **{"step": 60, "fvu": 0.2 + layer / 100, "l0": 64.1, "dead_share": 0.031, **fields},
        )
        for layer in range(count)
    )


def snapshot(transcoders: tuple[TranscoderStatus, ...]) -> Snapshot:
    return Snapshot(
        steps=204,
        phase="training",
        step=60,
        tokens_per_second=1604.2,
        seconds_left=52.0,
        seconds={"load": 9.0, "forward": 3.0, "train": 6.0, "checkpoint": 0.5, "wait": 0.5},
        forwards={"trainer-0": {"passes": 157}, "trainer-1": {"passes": 3}},
        transcoders=transcoders,
    )


def picture(now: Snapshot, width: int, height: int, apart=None) -> list[str]:
    """The lines on a screen of that size."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=height, color_system=None)
    view = LiveView(console, apart or {})
    view.show(now)
    with console.capture() as shown:
        console.print(view._picture())
    view.close()
    return [line.rstrip() for line in ESCAPES.sub("", shown.get()).splitlines()]


def test_the_head_says_how_fast_how_long_and_what_the_time_goes_to() -> None:
    first, second, *_ = picture(snapshot(rows(4)), 120, 30)
    assert first == ("training     step 60/204  1,604 tokens/s  0:52 left  mean batch FVU 0.215")
    assert second == "  160 forward passes, forward 30%, steps 60%, checkpoints 5%, waits 5%"


@pytest.mark.parametrize("width", [40, 60, 80, 132])
@pytest.mark.parametrize("height", [10, 24, 50])
def test_26_transcoders_fit_every_screen_and_none_is_left_out_in_silence(
    width: int, height: int
) -> None:
    lines = picture(snapshot(rows(26)), width, height)
    assert len(lines) < height and all(len(line) <= width for line in lines)
    assert "…" not in "".join(lines)
    named = [line for line in lines if line.startswith("L")]
    if height == 50:
        assert len(named) == 26
    else:
        assert len(named) >= height - 9 and any(
            line.startswith(f"and {26 - len(named)} more: ") for line in lines
        )


def test_what_is_beyond_the_screen_is_summed_up() -> None:
    suite = rows(26)
    suite = (*suite[:24], *(replace(row, state="done") for row in suite[24:]))
    (last,) = [line for line in picture(snapshot(suite), 120, 20) if line.startswith("and")]
    assert last == "and 12 more: 10 training, 2 done, batch FVU 0.340 to 0.450"


def test_one_that_failed_is_shown_however_far_down_it_stands() -> None:
    suite = rows(26)
    suite = (*suite[:25], replace(suite[25], state="failed"))
    lines = picture(snapshot(suite), 120, 20)
    named = [line for line in lines if line.startswith("L")]
    assert named[-1].startswith("L25") and named[-1].endswith("failed")
    assert "1 failed" in lines[0]


def test_the_members_of_a_sweep_are_told_apart() -> None:
    suite = tuple(
        replace(row, id=f"L08.resid_mid-L08.mlp_out-{k:08x}")
        for row, k in zip(rows(2), (32, 64), strict=True)
    )
    specs = {row.id: {"k": k} for row, k in zip(suite, (32, 64), strict=True)}
    lines = picture(snapshot(suite[::-1]), 120, 30, apart_by_id(specs))
    assert lines[3].split()[:2] == ["transcoder", "k"]
    assert [line.split()[1] for line in lines[4:]] == ["64", "32"]


def test_where_producers_feed_cells_it_says_who_waits() -> None:
    cell = CellStatus("trainer-0", "training", 9, 256, rows(1), 2304, {"feed": 6.0, "train": 4.0})
    suite = Suite(20, [cell], ["producer-0"])
    suite.update(ProducerStatus("producer-0", {"forward": 9.0}, {"passes": 4}))
    lines = picture(Snapshot.of(suite), 200, 30)
    assert "4 forward passes, steps 40%, without rows 60%" in lines[1]
    assert any("the forward sets the pace" in line for line in lines[1:3])


def test_words_stand_alone_while_steps_say_nothing() -> None:
    told = replace(snapshot(rows(3)), doing="reading python-docs: 12,000 tokens")
    assert picture(told, 80, 24) == ["reading python-docs: 12,000 tokens"]


def test_before_anything_is_known_the_screen_is_not_torn() -> None:
    first, *_ = picture(Snapshot(40), 80, 24)
    assert first == "tokens       step 0/40"


def test_without_a_terminal_a_line_comes_every_few_seconds_and_at_each_phase() -> None:
    out = io.StringIO()
    view = PlainView(Console(file=out, width=200))
    now = snapshot(rows(2))
    for one in (now, replace(now, step=61), replace(now, phase="testing"), now):
        view.show(one)
    assert out.getvalue().splitlines() == [
        headline(now), headline(replace(now, phase="testing")), headline(now)
    ]  # fmt: skip
