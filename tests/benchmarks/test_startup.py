"""What the start-up benchmark makes of a log, and of its goals. Its commands are real elsewhere."""

from benchmarks import startup

LOG = """\
2026-11-25 16:06:58,500 INFO start: mtc-orchestrator 0.1.0, torch 2.13.0+cpu
2026-11-25 16:06:59,000 INFO manifest quickstart.yaml; 2 threads, device cpu
2026-11-25 16:07:04,500 INFO tokens
2026-11-25 16:07:13,407 INFO part of one pass (0.39) over 103,158 rows of text
2026-11-25 16:07:18,500 INFO training
2026-11-25 16:07:20,194 INFO first step after 23.3 s
2026-11-25 16:07:48,500 INFO calibrating, step 39
2026-11-25 16:07:54,500 INFO testing, step 39
2026-11-25 16:07:59,500 INFO done, step 39
2026-11-25 16:09:35,000 INFO report: /tmp/q/report.html
2026-11-25 16:09:35,500 INFO end: exit code 0
"""


def test_the_parts_of_a_run_add_up_to_the_whole():
    parts = dict(startup.parts_of(LOG))
    assert parts == {
        "Ray, or what stands for it": 6.0,
        "the text, and the model meanwhile": 14.0,
        "the first block, training": 30.0,
        "thresholds": 6.0,
        "held-out figures, saving": 5.0,
        "splicing": 95.5,
        "the report": 0.5,
    }
    assert sum(parts.values()) == 157.0


def test_goals_that_are_missed_are_told():
    reached = {"validate": 0.5, "plan": 1.5, "first step with Ray": 25.0}
    assert list(startup.missed(reached)) == []
    assert list(startup.missed(reached | {"plan": 1.6})) == ["plan took 1.60 s, above 1.5"]


def test_a_command_is_timed_and_a_failing_one_is_not_taken_for_a_fast_one():
    assert startup.seconds_of("--version") > 0
    try:
        startup.seconds_of("validate", "nowhere.yaml")
    except startup.subprocess.CalledProcessError as error:
        assert error.returncode == 2
    else:
        raise AssertionError("a failing command was timed")
