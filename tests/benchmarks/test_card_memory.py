"""Memory of a card, by a stand-in for nvidia-smi: there is no GPU here."""

import os
import time

import pytest

from benchmarks.card_memory import MIB, PeakOfCard, used_bytes

SMI = """#!/bin/sh
echo "$*" >> "{folder}/asked"
cat "{folder}/used"
"""


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Tells what is in a file."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def uses(mib):
        (tmp_path / "new").write_text(f"{mib}\n")
        (tmp_path / "new").replace(tmp_path / "used")

    uses(500)
    return uses


def looked(tmp_path, count=2):
    """Wait for so many more looks at the card."""
    asked, until = tmp_path / "asked", time.monotonic() + 30
    wanted = len(asked.read_text().splitlines()) + count
    while len(asked.read_text().splitlines()) < wanted and time.monotonic() < until:
        time.sleep(0.01)


def test_the_most_is_told_less_what_was_there_before(card, tmp_path):
    with PeakOfCard("cuda", every_s=0.01) as memory:
        for mib in (900, 2500, 700):
            card(mib)
            looked(tmp_path)
    card(9000)
    assert memory.peak_bytes == 2000 * MIB


def test_the_card_asked_for_is_the_first_that_torch_sees(card, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert used_bytes() == 500 * MIB
    assert "--id=3" in (tmp_path / "asked").read_text()


def test_a_cpu_has_none_and_a_driver_that_tells_nothing_none_either(card, tmp_path):
    with PeakOfCard("cpu") as of_cpu:
        pass
    assert of_cpu.peak_bytes is None and not (tmp_path / "asked").exists()
    card("[N/A]")
    with PeakOfCard("cuda") as silent:
        pass
    assert silent.peak_bytes is None
