"""Text and tokenizers that are broken, huge, or not what they seem: the run ends with one message
that says what to change, or goes on and finishes."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from mtc_core.errors import MtcError
from tests.core.tiny_models import BOS, save_tiny_model, tiny_tokenizer
from tests.e2e.runs import run_here, write_manifest
from tests.hardening.conftest import Tally, share

pytestmark = pytest.mark.hardening
ONE = "  - {layers: 0, source: resid_mid, target: mlp_out}"
LONG = 100_000_000  # characters
WORDS = "the quick brown fox jumps over the lazy dog and does not come back "


def outcome(folder: Path, model: Path, *overrides: str) -> tuple[int, str]:
    """Exit code and message of a small run on a model."""
    manifest = write_manifest(folder, model, transcoders=ONE, tokens=256 * 8)
    try:
        return run_here(manifest, folder, *overrides)
    except MtcError as error:  # what the command shows with exit 2
        return 2, str(error)


def lines(path: Path, texts: list[str], key: str = "text") -> None:
    path.write_text("".join(json.dumps({key: text}) + "\n" for text in texts))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def one_token(path: Path) -> None:
    path.write_text("a")


def binary(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(100_000))


def broken_utf8(path: Path) -> None:
    path.write_bytes(WORDS.encode() * 100 + b"\ncaf\xe9 \xff\n" + WORDS.encode() * 2000)


def short_gz(path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"text": "%s"}\n' % (WORDS.encode() * 9) for _ in range(999)))
    path.write_bytes(whole[: len(whole) // 2])


def no_gz(path: Path) -> None:
    path.write_bytes(b"this is no gzip" * 1000)


def other_column(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"body": [WORDS * 50] * 100, "id": range(100)}), path)


def short_parquet(path: Path) -> None:
    other_column(path)
    path.write_bytes(path.read_bytes()[:-100])


def prose(size: int) -> str:
    """Words in no order, so that no two documents are alike."""
    return " ".join(random.Random(size).choices(WORDS.split(), k=size // 5))


def long_line(path: Path) -> None:
    path.write_text(prose(share(LONG)))


def long_json_line(path: Path) -> None:
    lines(path, [prose(share(LONG) if i == 20 else 1500 + i) for i in range(2000)])


def nulls(path: Path) -> None:
    path.write_text('{"text": null}\n' * 5000)


CASES: dict[str, tuple[Callable[[Path], None], str, int, str]] = {
    # what is done, file name, exit code, what must be said
    "empty file": (empty, "t.txt", 2, r"data\.path: .*t\.txt"),
    "one token": (one_token, "t.txt", 2, r"data\.path: .*fewer tokens than a holdout needs"),
    "binary": (binary, "t.txt", 2, r"t\.txt:\d+: not UTF-8"),
    "broken UTF-8": (broken_utf8, "t.txt", 2, r"t\.txt:2: not UTF-8 .*iconv"),
    "gz that ends early": (short_gz, "t.jsonl.gz", 2, "gzip data is damaged or cut short"),
    "gz that is none": (no_gz, "t.jsonl.gz", 2, "gzip data is damaged or cut short"),
    "parquet without the column": (other_column, "t.parquet", 2, "no column 'text'.*body, id"),
    "parquet that ends early": (short_parquet, "t.parquet", 2, "not a readable Parquet file"),
    "a very long line": (long_line, "t.txt", 0, ""),
    "a very long line of JSON": (long_json_line, "t.jsonl", 0, ""),
    "nothing but nulls": (nulls, "t.jsonl", 2, "holds no text"),
}


@pytest.mark.parametrize("case", CASES)
def test_text(case: str, model: Path, tmp_path: Path, tally: Tally) -> None:
    write, name, code, said = CASES[case]
    write(tmp_path / name)
    found, printed = outcome(tmp_path, model, f"data.path={tmp_path / name}")
    told = printed if found else "done"
    right = found == code and re.search(said, " ".join(printed.split()))
    tally.add(bool(right) and "Traceback" not in printed, told)


def breaking(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> None:
    """A dataset of `datasets`, as the Hub's are, whose reading fails after 10,000 rows. No Hub can
    be reached here."""
    import datasets

    from mtc_core.tokens import patience, text_hub

    left = [error] * times
    texts = sorted(topics.values())

    def examples():
        for number in range(30_000):
            if number == 10_000 and left:
                raise left.pop()
            yield {"text": texts[number % len(texts)][:40]}

    monkeypatch.setattr(
        text_hub, "open_dataset", lambda data: datasets.IterableDataset.from_generator(examples)
    )
    monkeypatch.setattr(text_hub, "hub_commit", lambda data: "0" * 40)
    monkeypatch.setattr(patience, "WAITS_S", (0.01, 0.02, 0.04))


@pytest.mark.parametrize("times,code", [(2, 0), (9, 3)])
def test_a_stream_that_breaks_off(
    times: int, code: int, model: Path, tmp_path: Path, monkeypatch, tally: Tally
) -> None:
    breaking(monkeypatch, ConnectionResetError("the peer has gone"), times)
    more = ("data.path=some/dataset", "train.tokens=300k", "train.batch_tokens=4096")
    found, printed = outcome(tmp_path, model, *more)
    said = "reading broke off after 10000 examples: the peer has gone"
    tally.add(found == code and (not code or said in " ".join(printed.split())), printed[-300:])


def test_a_stream_that_cannot_be_read(model: Path, tmp_path: Path, monkeypatch, tally: Tally):
    breaking(monkeypatch, ValueError("Invalid JSON at column 7"), 1)
    more = ("data.path=some/dataset", "train.tokens=300k", "train.batch_tokens=4096")
    found, printed = outcome(tmp_path, model, *more)
    said = "example 10001 cannot be read: Invalid JSON at column 7"
    tally.add(found == 2 and said in printed, printed[-300:])


def test_a_tokenizer_without_bos(tmp_path: Path, tally: Tally) -> None:
    folder = save_tiny_model(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    assert BOS not in (folder / "tokenizer_config.json").read_text()
    found, printed = outcome(tmp_path, folder)
    tally.add(found == 0, printed[-300:] if found else "done")


def test_a_vocabulary_larger_than_the_embedding(tmp_path: Path, tally: Tally) -> None:
    folder = save_tiny_model(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["the", "and", "Python"])
    tokenizer.save_pretrained(folder)
    found, printed = outcome(tmp_path, folder)
    said = r"the tokenizer gives token (25[89]|260), and the model's embedding has 258 rows"
    right = found == 2 and re.search(said, " ".join(printed.split()))
    tally.add(bool(right), printed[-600:])
