"""The environment of the other tools: made once, made anew when half made, and no riddle."""

import re

import pytest

from benchmarks import peers_environment as peers


@pytest.fixture
def commands(monkeypatch):
    """What would be run, instead of running it."""
    seen = []

    def note(*words):
        seen.append([str(word) for word in words])
        if words[2] == "venv":
            words[-1].mkdir(parents=True)

    monkeypatch.setattr(peers, "_run", note)
    return seen


@pytest.fixture
def requirements(monkeypatch, tmp_path):
    file = tmp_path / "peers-requirements.txt"
    file.write_text("torch==9999.0\n")
    monkeypatch.setattr(peers, "REQUIREMENTS", file)
    return file


def test_every_requirement_is_exact():
    lines = [line for line in peers.REQUIREMENTS.read_text().splitlines() if line[:1] != "#"]
    assert len(lines) > 80
    for line in lines:
        assert re.fullmatch(r'[\w.-]+==[\w.]+( ; python_version < "3\.13")?', line), line


def test_it_is_made_once_for_the_same_requirements(commands, requirements, tmp_path):
    first = peers.peers_python(tmp_path / "kept")
    assert [words[1:4] for words in commands][1:] == [["-m", "pip", "install"]] * 2
    assert peers.peers_python(tmp_path / "kept") == first and len(commands) == 3
    requirements.write_text("torch==9999.1\n")
    assert peers.peers_python(tmp_path / "kept") != first and len(commands) == 6


@pytest.mark.conformance
def test_where_it_cannot_be_installed_one_is_told_what_and_why(requirements, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for _ in range(2):  # the first leaves half an environment
        with pytest.raises(peers.NotInstalled) as problem:
            peers.peers_python(tmp_path / "kept")
        message = str(problem.value)
        assert str(requirements) in message and "torch==9999.0" in message and "PyPI" in message
