"""Documents: complete, in order, resumable after any of them, with errors that say what to do."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtc_core.errors import ConfigError, DataError
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.text import READERS, documents, is_hub
from mtc_core.tokens.text_files import LINE_MAX_BYTES, SECTION_BYTES, SECTION_MAX_BYTES
from mtc_core.tokens.text_hub import read_dataset
from tests.core.tiny_text import made_up_documents, write_jsonl

TEXTS = made_up_documents(40)


def read(path: Path | str) -> list[str]:
    return [document.text for document in documents(DataConfig(path=str(path)))]


def write_parquet(path: Path, texts: list, column: str = "text") -> Path:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"n": list(range(len(texts))), column: texts})
    pyarrow.parquet.write_table(table, path, row_group_size=7)
    return path


def write_txt(path: Path, texts: list[str]) -> Path:
    path.write_text("\n\n".join(f"{text}\n{text * 30}" for text in texts))
    return path


def write_gz(path: Path, texts: list[str]) -> Path:
    path.write_bytes(gzip.compress(write_jsonl(path.with_suffix(".plain"), texts).read_bytes()))
    return path


def write_folder(path: Path, texts: list[str]) -> Path:
    path.mkdir()
    write_gz(path / "b.jsonl.gz", texts[10:20])
    write_jsonl(path / "a.jsonl", texts[:10])
    write_parquet(path / "c.parquet", texts[20:])
    (path / "README.md").write_text("not a corpus")
    return path


SOURCES = {
    "a.jsonl": write_jsonl,
    "a.jsonl.gz": write_gz,
    "a.parquet": write_parquet,
    "folder": write_folder,
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_format_gives_the_same_documents_in_order(tmp_path, name):
    assert read(SOURCES[name](tmp_path / name, TEXTS)) == TEXTS


@pytest.mark.parametrize("name", [*SOURCES, "a.txt", "python-docs"])
def test_reading_resumes_after_any_document(tmp_path, name):
    sources = {**SOURCES, "a.txt": write_txt}
    path = sources[name](tmp_path / name, TEXTS) if name in sources else name
    data = DataConfig(path=str(path))
    whole = list(documents(data))
    assert len(whole) > 5
    for i in range(0, len(whole), max(1, len(whole) // 20)):
        cursor = json.loads(json.dumps(whole[i].after))
        assert list(documents(data, cursor)) == whole[i + 1 :]


@given(st.lists(st.sampled_from(["", "  ", "a b", "x" * 700, "naïve 猫" * 90, "\ty"]), max_size=40))
@settings(deadline=None)
def test_sections_keep_every_line_and_end_where_a_blank_line_stands(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text("\n".join([*lines, "end"]))
    texts = read(path)
    kept = [line for text in texts for line in text.split("\n") if line.strip()]
    assert kept == [line for line in [*lines, "end"] if line.strip()]
    for text in texts[:-1]:
        assert SECTION_BYTES - 100 <= len(text.encode()) < SECTION_MAX_BYTES + 2000


def test_text_without_blank_lines_is_cut_at_line_ends(tmp_path):
    lines = [f"line {i} of a corpus with one sentence on each" for i in range(2000)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    texts = read(tmp_path / "a.txt")
    assert [line for text in texts for line in text.split("\n")] == lines
    assert all(len(text) < SECTION_MAX_BYTES + 100 for text in texts)


@pytest.mark.parametrize("word", ["word ", "猫猫", "ñandúes"])
def test_text_without_line_ends_is_cut_between_words_or_characters(tmp_path, word):
    text = word * (200_000 // len(word.encode()))
    (tmp_path / "a.txt").write_text(text)
    data = DataConfig(path=str(tmp_path / "a.txt"))
    found = list(documents(data))
    assert "".join(document.text for document in found) == text
    assert len(found) > 1
    assert all(len(document.text.encode()) <= LINE_MAX_BYTES for document in found)
    assert list(documents(data, found[0].after)) == found[1:]


def test_windows_text_reads_like_any_other(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n\r\nthree\r\n".encode())
    assert read(tmp_path / "a.txt") == ["one\ntwo\n\nthree"]


def test_empty_and_null_texts_are_no_documents_and_half_characters_are_replaced(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": " "}\n{"text": null}\n\n{"text": "a\\ud800b"}\n')
    assert read(path) == ["a?b"]


def test_python_docs_hold_enough_to_try_a_run():
    texts = read("python-docs")
    assert sum(len(text.split()) for text in texts) > 50_000
    assert len(texts) > 200


def text_error(folder: Path) -> Path:
    (folder / "a.txt").write_bytes("fine\nfine\nna\xefve\n".encode("latin-1"))
    return folder / "a.txt"


def one_file(name: str, content: bytes):
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def cut_gz(folder: Path) -> Path:
    path = write_gz(folder / "a.jsonl.gz", TEXTS * 50)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def empty_file_in_folder(folder: Path) -> Path:
    (folder / "a.txt").write_text("text")
    (folder / "b.txt").touch()
    return folder


ERRORS = {
    "missing file": (lambda folder: folder / "no.txt", ["no.txt does not exist"]),
    "empty file": (one_file("a.txt", b""), ["a.txt is empty", "remove"]),
    "empty file in a folder": (empty_file_in_folder, ["b.txt is empty"]),
    "empty folder": (lambda folder: folder, ["no file that can be read", ".jsonl"]),
    "only blank lines": (one_file("a.txt", b"\n \n\n"), ["a.txt holds no text"]),
    "not UTF-8": (text_error, ["a.txt:3: not UTF-8", "byte 3", "iconv"]),
    "UTF-16": (one_file("a.txt", "text".encode("utf-16")), ["a.txt:1: not UTF-8"]),
    "unknown extension": (one_file("a.csv", b"text"), ["a.csv", "'.csv'", ".parquet"]),
    "cut gzip": (cut_gz, ["a.jsonl.gz", "cut short", "again"]),
    "no gzip": (one_file("a.jsonl.gz", b'{"text": "a"}'), ["a.jsonl.gz", "gzip"]),
    "not JSON": (one_file("a.jsonl", b'{"text": "a"}\n{"text\n'), ["a.jsonl:2: not JSON"]),
    "JSON list": (one_file("a.jsonl", b'["a"]\n'), ["a.jsonl:1", "list", "object"]),
    "no column": (
        one_file("a.jsonl", b'{"body": "a", "id": 1}\n'),
        ["a.jsonl:1", "'text'", "data.column", "body, id"],
    ),
    "no column in Parquet": (
        lambda folder: write_parquet(folder / "a.parquet", TEXTS, "body"),
        ["a.parquet", "'text'", "n, body"],
    ),
    "number": (one_file("a.jsonl", b'{"text": 5}\n'), ["a.jsonl:1", "int (5)", "data.column"]),
    "number in Parquet": (
        lambda folder: write_parquet(folder / "a.parquet", [1.5, 2.5]),
        ["a.parquet, row 1", "float (1.5)"],
    ),
    "no Parquet": (one_file("a.parquet", b"text" * 9), ["a.parquet", "not a readable Parquet"]),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_with_text_is_said_with_its_place_and_remedy(tmp_path, case):
    make, fragments = ERRORS[case]
    with pytest.raises(DataError) as caught:
        read(make(tmp_path))
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_names_in_capitals_are_the_same_formats(tmp_path):
    path = write_jsonl(tmp_path / "plain.jsonl", TEXTS[:3])
    (tmp_path / "A.JSONL.GZ").write_bytes(gzip.compress(path.read_bytes()))
    assert read(tmp_path / "A.JSONL.GZ") == read(path)


@pytest.mark.parametrize("name", ["t.txt", "t.jsonl"])
def test_a_file_that_cannot_be_read_is_told_and_no_bug(tmp_path, name):
    """The tests may run as root, whom permissions do not stop: this file cannot be read by it."""
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=rf"{name} cannot be read \(Input/output error\)"):
        list(READERS[Path(name).suffix](tmp_path / name, "text", None))


def test_what_names_the_hub_and_what_names_a_file(tmp_path):
    assert is_hub(DataConfig(path="monology/pile-uncopyrighted"))
    assert is_hub(DataConfig(path="wikitext"))
    for local in ("python-docs", "./x", "/x/y", "~/x", "texts/", "a/b/c", "x.txt", str(tmp_path)):
        assert not is_hub(DataConfig(path=local)), local


@pytest.fixture(params=["streamed", "downloaded"])
def dataset_maker(request, tmp_path):
    """Opens the same small dataset through `datasets`, as the Hub's are."""
    import datasets

    write_jsonl(tmp_path / "a.jsonl", TEXTS[:25])
    write_jsonl(tmp_path / "b.jsonl", TEXTS[25:])
    if request.param == "streamed":
        files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
        return lambda: datasets.load_dataset(
            "json", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path / "c")
        )
    return lambda: datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()


def test_a_dataset_is_read_in_order_and_resumes_again_and_again(dataset_maker):
    def read_from(position):
        return list(read_dataset(dataset_maker(), DataConfig(path="some/dataset"), position))

    whole = read_from(None)
    assert [text for text, _ in whole] == TEXTS
    for i in range(0, 30, 7):
        position = json.loads(json.dumps(whole[i][1]))
        once = read_from(position)
        assert [text for text, _ in once] == TEXTS[i + 1 :]
        twice = read_from(once[5][1])
        assert [text for text, _ in twice] == TEXTS[i + 7 :]
        assert twice[0][1]["examples"] == i + 8
        without_state = read_from({**position, "state": None})
        assert [text for text, _ in without_state] == TEXTS[i + 1 :]


def test_a_dataset_without_the_column_lists_those_it_has(dataset_maker):
    data = DataConfig(path="some/dataset", column="body")
    with pytest.raises(DataError, match=r"some/dataset, example 1: no column 'body'.*: text"):
        list(read_dataset(dataset_maker(), data, None))


def test_a_dataset_that_cannot_be_reached_is_explained():
    code = (
        "from mtc_core.tokens.data_config import DataConfig\n"
        "from mtc_core.tokens.text import documents\n"
        "from mtc_core.errors import DataError\n"
        "try: next(documents(DataConfig(path='nobody/nothing', split='validation')))\n"
        "except DataError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for fragment in ("data.path: 'nobody/nothing'", "split validation", "HF_TOKEN"):
        assert fragment in said


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"path": " "}, "path must not be empty"),
        ({"context_tokens": 1}, "context_tokens must be at least 2"),
        ({"holdout_tokens": 255}, "holdout_tokens = 255 is too small"),
        ({"shuffle_tokens": 127}, "shuffle_tokens = 127 is smaller"),
        ({"subset": ""}, "subset must name"),
    ],
)
def test_settings_that_no_text_can_satisfy_are_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**{"path": "python-docs", **changed})


def test_settings_load_without_torch_or_numpy():
    code = (
        "import sys, mtc_core.tokens.data_config\n"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
