"""Every mistake of a manifest is told in full: file, line, key, what was found, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.manifest import load_manifest
from orchestrator.messages import ManifestError
from tests.orchestrator.manifests import manifest_text, write_manifest


def read_mistakes(text: str) -> Iterator[tuple[str, dict[int, str], list[str]]]:
    """Name, spoilt lines and message of every case in manifest_mistakes.txt."""
    for case in text.split("\n## ")[1:]:
        name, *lines = case.strip().split("\n")
        spoilt: dict[int, str] = {}
        for number, _, line in (line.partition("|") for line in lines if line[0] != ">"):
            at = int(number)
            spoilt[at] = f"{spoilt[at]}\n{line}" if at in spoilt else line
        yield name, spoilt, [line[2:] for line in lines if line[0] == ">"]


TABLE = Path(__file__).with_name("manifest_mistakes.txt").read_text(encoding="utf-8")
MISTAKES = {name: (spoilt, message) for name, spoilt, message in read_mistakes(TABLE)}


@pytest.mark.parametrize("command", [("validate",), ("plan",), ("run", "--backend", "local")])
@pytest.mark.parametrize(("spoilt", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_line_and_key_and_nothing_is_written(
    spoilt: dict[int, str],
    message: list[str],
    command: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path, spoilt)
    (tmp_path / "short.txt").write_text("No holdout is left. " * 50)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    ended = CliRunner().invoke(cli, [command[0], "m.yaml", *command[1:]])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.replace(str(tmp_path), "{here}").splitlines() == message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "m.yaml", "short.txt"]


def test_there_are_many_mistakes_and_every_kind_of_problem_is_among_them() -> None:
    assert len(MISTAKES) >= 60
    told = "\n".join(line for _, message in MISTAKES.values() for line in message)
    for key in (
        "model",
        "data",
        "train",
        "defaults",
        "transcoders[0]",
        "resources",
        "eval",
        "tracking",
    ):
        assert re.search(rf"{re.escape(key)}\.\w+: unknown key", told), key


EMPTY = "m.yaml: is empty; `mtc-orchestrate init` writes a manifest to start from"
BYTES = {
    "an empty file": (b"", EMPTY),
    "only comments": (b"# soon\n", EMPTY),
    "a list": (b"- name\n", "m.yaml:1: a manifest is a mapping of keys such as name: and model:"),
    "a word": (b"name\n", "m.yaml:1: a manifest is a mapping of keys such as name: and model:"),
    "latin-1": (b"name: t\nmodel: caf\xe9\n", "m.yaml:2: not UTF-8: byte 0xe9"),
    "binary": (b"name: t\nmodel: \x00\n", "m.yaml:2: not text: a control character; remove it"),
    "a huge file": (
        b"#" * 300_001,
        "m.yaml: a manifest has at most 300,000 bytes, this has more",
    ),
}


@pytest.mark.parametrize(("data", "message"), BYTES.values(), ids=BYTES.keys())
def test_a_file_that_is_no_manifest_is_told(
    data: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_bytes(data)
    with pytest.raises(ManifestError) as error:
        load_manifest("m.yaml")
    assert str(error.value) == message


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no\.yaml: there is no such file; `.* init` writes"):
        load_manifest(tmp_path / "no.yaml")
    write_manifest(tmp_path)
    with pytest.raises(ManifestError, match=r'mm\.yaml: .* file; did you mean ".*/m\.yaml"\?'):
        load_manifest(tmp_path / "mm.yaml")
    with pytest.raises(ManifestError, match=r"is a folder; give the \.yaml of a manifest"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.yaml").write_text("")
    with pytest.raises(ManifestError, match=r"is a folder; give .*/manifest\.yaml, its manifest"):
        load_manifest(tmp_path)


OVERRIDES = {
    "no equals sign": (
        "train.tokens",
        "--set train.tokens: must be KEY=VALUE, such as --set train.tokens=1M",
    ),
    "no value": ("name=", "--set name=: must be KEY=VALUE, such as --set train.tokens=1M"),
    "not a key": (
        "train..x=1",
        "--set train..x=1: must be KEY=VALUE, such as --set train.tokens=1M",
    ),
    "unknown key": (
        "train.tokns=1M",
        '--set train.tokns=1M: train.tokns: unknown key; did you mean "tokens"?',
    ),
    "bad value": (
        "train.tokens=lots",
        "--set train.tokens=lots: train.tokens: must be a whole number such as 8192, 1e8 or 100M, "
        'found "lots"',
    ),
    "no such entry": ("transcoders[3].k=1", "--set transcoders[3].k=1: there is no transcoders[3]"),
    "below a scalar": ("name.x=1", "--set name.x=1: name has no keys"),
    "null": (
        "train.lr=null",
        "--set train.lr=null: train.lr: has no value; give one, or remove the key to use its "
        "default",
    ),
    "broken YAML": (
        "train.lr=[1",
        "--set train.lr=[1: not valid YAML: while parsing a flow sequence expected ',' or ']', "
        "but got '<stream end>'",
    ),
}


@pytest.mark.parametrize(("override", "message"), OVERRIDES.values(), ids=OVERRIDES.keys())
def test_a_mistake_in_an_option_names_the_option(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError) as error:
        load_manifest(write_manifest(tmp_path), [override])
    assert str(error.value) == message


def test_mistakes_of_file_and_options_come_in_one_report(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, {2: "model: {name: gpt2, dtype: int8}"})
    with pytest.raises(ManifestError) as error:
        load_manifest(path, ["train.batch_tokens=none", "seed=-1"])
    lines = str(error.value).split("\n")
    assert [line.partition(": ")[0] for line in lines] == [
        "--set seed=-1",
        "--set train.batch_tokens=none",
        f"{path}:2",
    ]


def test_ten_thousand_brackets_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("name: " + "[" * 10_000)
    with pytest.raises(ManifestError, match="nested more than 20 deep"):
        load_manifest(path)


def test_the_sound_manifest_is_sound(tmp_path: Path) -> None:
    assert load_manifest(write_manifest(tmp_path)).source_text == manifest_text()
