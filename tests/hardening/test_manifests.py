"""Manifests and options that are wrong in every way that we could think of, and in many that we
could not: valid, or refused with file, line and path. Never a traceback, a hang, or a file."""

from __future__ import annotations

import random
import re
import time
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.cli import cli
from tests.hardening.conftest import Tally, share
from tests.hardening.mutants import KEYS, NASTY, SHIPPED, mutants, parses

pytestmark = pytest.mark.hardening
INPUTS = share(5000)
PATIENCE_S = 5.0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


NOT_HERE = "model '.+': "  # of a plan, which needs the model's shape


def problem(ended: Result, name: str, seconds: float, also: str = NOT_HERE) -> str:
    """What is wrong with how a command ended; nothing where it is as it should be. also: how else a
    line may begin."""
    if ended.exception and not isinstance(ended.exception, SystemExit):
        return "".join(traceback.format_exception(ended.exception)[-3:])
    if seconds > PATIENCE_S:
        return f"took {seconds:.1f} s"
    if ended.exit_code not in (0, 2):
        return f"exit {ended.exit_code}: {ended.stderr}"
    if ended.exit_code == 2:
        told = ended.stderr.splitlines()
        if not told or "Traceback" in ended.stderr:
            return f"said nothing to act on: {ended.stderr!r}"
        if not all(re.match(rf"{re.escape(name)}(:\d+)?: \S|{also}", line) for line in told):
            return f"a line without file and line: {told}"
    return ""


def tried(here: Path, data: bytes, *command: str) -> tuple[Result, str]:
    """A command on a manifest of these bytes, and what is wrong with how it ended."""
    (here / "m.yaml").write_bytes(data)
    began = time.monotonic()
    ended = CliRunner().invoke(cli, [command[0], "m.yaml", *command[1:]])
    wrong = problem(ended, "m.yaml", time.monotonic() - began)
    if not wrong and files(here) != ["m.yaml"]:
        wrong = f"wrote {files(here)}"
    return ended, wrong


def test_spoilt_manifests(here: Path, tally: Tally) -> None:
    seed = random.randrange(2**32)
    draw, valid, alike = random.Random(seed), 0, 0
    for kind, text in mutants(draw, INPUTS):
        ended, wrong = tried(here, text.encode("utf-8", "surrogatepass"), "validate")
        if not wrong and ended.exit_code == 0:
            valid += 1
            if draw.random() < 0.2:  # what is valid can be planned, or the plan says why not
                ended, wrong = tried(here, text.encode(), "plan", "--gpu-memory", "80GB")
        alike += kind == "one value" and parses(text)
        tally.add(not wrong, f"seed {seed}, {text!r}: {wrong}" if wrong else ended.stderr)
    assert alike >= INPUTS // 2, f"only {alike} parse as YAML and differ in one value"
    assert INPUTS // 50 < valid < INPUTS // 2, f"{valid} of them are valid"


@settings(max_examples=share(500), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates()),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
    )
)
def test_any_value_at_all(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    import yaml

    folder = tmp_path_factory.mktemp("any")
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    ended = CliRunner().invoke(cli, ["validate", str(path)])
    assert not problem(ended, str(path), 0)


def test_options(here: Path, tally: Tally) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    known = (
        "train.tokens",
        "train.lr",
        "name",
        "data.path",
        "transcoders[0].k",
        "seed",
        "defaults.k",
    )
    for _ in range(share(1000)):
        key = draw.choice(known) if draw.random() < 0.7 else ".".join(draw.choices(KEYS, k=2))
        option = f"{key}{draw.choice(('=', '=', '=', '', '==', ' = '))}{draw.choice(NASTY)}"
        (here / "m.yaml").write_bytes(draw.choice(SHIPPED).read_bytes())
        began = time.monotonic()
        ended = CliRunner().invoke(cli, ["validate", "m.yaml", "--set", option])
        wrong = problem(ended, "m.yaml", time.monotonic() - began, "--set .+: ")
        tally.add(not wrong, f"seed {seed}, {option!r}: {wrong}" if wrong else ended.stderr)


SOUND = b"name: t\nmodel: {name: gpt2}\ndata: {path: python-docs}\ntrain: {tokens: 1M}\n"
END = b"""defaults: {group_sizes: [768, 1536], k: 64}
transcoders:
  - {layers: 0-1, source: resid_mid, target: mlp_out}
"""
MANY = b"  - {layers: 0-11, source: resid_mid, target: mlp_out, seed: [%s]}\n"
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 107)
)
ODD = {
    "bomb": BOMB,
    "bom": b"\xef\xbb\xbf" + SOUND + END,
    "utf-16": (SOUND + END).decode().encode("utf-16"),
    "latin-1": SOUND + b"# caf\xe9\n" + END,
    "crlf": (SOUND + END).replace(b"\n", b"\r\n"),
    "cr": (SOUND + END).replace(b"\n", b"\r"),
    "ten megabytes": SOUND + b"# " + b"x" * 10**7 + b"\n" + END,
    "ten megabytes of keys": b"".join(b"k%d: 1\n" % i for i in range(900_000)),
    "deep": b"a: " + b"[" * 100_000,
    "deep and closed": b"a: " + b"[" * 20_000 + b"]" * 20_000,
    "empty": b"",
    "nothing but a comment": b"# x\n",
    "zeros": b"\0" * 1000,
    "binary": bytes(range(256)) * 10,
    "python": SOUND + b"x: !!python/object/apply:os.system ['touch pwned']\n" + END,
    "python at the top": b"!!python/object/apply:os.system ['touch pwned']\n",
    "date": SOUND.replace(b"name: t", b"name: 2026-11-25") + END,
    "name that leaves the root": SOUND.replace(b"name: t", b"name: ../../x") + END,
    "name of a folder above": SOUND.replace(b"name: t", b"name: '..'") + END,
    "name with a slash": SOUND.replace(b"name: t", b"name: a/b") + END,
    "huge integer": SOUND.replace(b"1M", b"9" * 4400) + END,
    "many entries": SOUND + END + MANY % b", ".join(b"%d" % i for i in range(1, 20_000)),
}  # fmt: skip
SOUND_ONES = {"bom", "crlf", "cr", "date"}


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_odd_files(here: Path, tally: Tally, command: str) -> None:
    for name, data in ODD.items():
        ended, wrong = tried(here, data, command)
        if not wrong and (ended.exit_code == 0) != (name in SOUND_ONES):
            wrong = f"exit {ended.exit_code}: {ended.stderr}"
        tally.add(not wrong, f"{name}: {wrong}" if wrong else ended.stderr)
