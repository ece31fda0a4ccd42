"""The log file: what every invocation says of itself, and that it never does harm."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from mtc_core.errors import ConfigError
from orchestrator.run_folder.log import PhaseLog, log_start, log_to

FULL = Path("/dev/full")


def test_loggers_of_the_core_reach_the_file_and_the_terminal_stays_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with log_to(tmp_path / "log.txt"):
        log_start(Path("m.yaml"), ("seed=1",), 2, "cpu")
        logging.getLogger("mtc.gguf").info("unpacking")
    logging.getLogger("mtc").info("after the end")
    text = (tmp_path / "log.txt").read_text()
    assert f"Python {sys.version.split()[0]}" in text and "transformers " in text
    assert f"manifest {Path('m.yaml').absolute()} --set seed=1; 2 threads, device cpu" in text
    assert "unpacking" in text and "after the end" not in text
    assert capfd.readouterr() == ("", "")


def test_a_phase_is_logged_once(tmp_path: Path) -> None:
    phases = PhaseLog()
    with log_to(tmp_path / "log.txt"):
        for phase, step in (("tokens", 0), ("training", 12), ("training", 13), ("testing", 40)):
            phases.update(phase, step)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.partition(" INFO ")[2] for line in lines] == [
        "tokens",
        "training, step 12",
        "testing, step 40",
    ]


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full to write to")
def test_a_full_disk_stops_nothing_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.txt").symlink_to(FULL)
    with log_to(tmp_path / "log.txt"):
        logging.getLogger("mtc").info("lost")
    assert capfd.readouterr() == ("", "")


def test_a_log_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    told = r"cannot be written .*choose another --root"
    with pytest.raises(ConfigError, match=told), log_to(tmp_path / "log.txt"):
        pass
