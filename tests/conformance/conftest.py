"""The tools that read our exports, what they found, and the table of it."""

import os
import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.peers_environment import NotInstalled, peers_python
from tests.conformance.cases import DAMAGED, WHOLE, damage_case, write_case
from tests.conformance.peers import ask
from tests.conformance.suites import KINDS, train

FIGURES = ("acts", "y", "features", "logits")
HEAD = ("tool", "version", "suite", "acts", "y", "acts of a prompt", "its logits", "its graph")
ROWS = pytest.StashKey[list[tuple[str, ...]]]()


@pytest.fixture(scope="session")
def peers():
    """The Python of the other tools. MTC_PEERS names a folder in which to keep them."""
    kept = os.environ.get("MTC_PEERS")
    folder = Path(kept or tempfile.mkdtemp(prefix="mtc-peers-")).resolve()
    try:
        yield peers_python(folder)
    except NotInstalled as problem:
        pytest.fail(str(problem), pytrace=False)
    finally:
        if not kept:
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def suites(tmp_path_factory):
    """Trained suites by kind."""
    folder = tmp_path_factory.mktemp("suites")
    made = {}
    for kind, (family, what) in KINDS.items():
        (folder / kind).mkdir()
        made[kind] = train(folder / kind, family, what)
    return made


@pytest.fixture(scope="session")
def found(peers, suites, tmp_path_factory):
    """What a tool found in its cases: found(program), asked once."""
    answers = {}

    def prepare_and_ask(program):
        cases = tmp_path_factory.mktemp(program) / "cases"
        for kind in WHOLE[program]:
            (cases / kind).mkdir(parents=True)
            write_case(program, suites[kind], cases / kind)
        for damage in DAMAGED[program]:
            damage_case(damage, cases)
        return ask(peers, program, cases)

    def find(program):
        if program not in answers:
            try:
                answers[program] = prepare_and_ask(program)
            except Exception as problem:  # nor is a failure found twice
                answers[program] = problem
        if isinstance(answers[program], Exception):
            raise answers[program]
        return answers[program]

    return find


@pytest.fixture
def tabulate(request):
    """Puts what a tool found in a suite into the table at the end."""

    def add(answer, kind):
        figures = answer["cases"][kind]
        shown = [f"{figures[name]:.0e}" if name in figures else "" for name in FIGURES]
        graph = ""
        if "edges" in figures:
            graph = f"{figures['active']} latents, {figures['edges']} edges"
        suite = ", ".join(KINDS[kind])
        rows = request.config.stash.setdefault(ROWS, [])
        rows.append((answer["tool"], answer["version"], suite, *shown, graph))

    return add


def pytest_terminal_summary(terminalreporter, config):
    """The table for benchmarks/CONFORMANCE.md."""
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("conformance: largest relative differences")
        versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
        terminalreporter.write_line(f"Ours: Python {platform.python_version()}, {versions}.\n")
        for cells in (HEAD, ["---"] * len(HEAD), *rows):
            terminalreporter.write_line(f"| {' | '.join(cells)} |")
