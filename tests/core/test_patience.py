"""A source that breaks off: asked again, to the same tokens, and not where asking cannot help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtc_core.errors import DataError, NotOpened, ReadingStopped
from mtc_core.tokens import patience, token_writer
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.patience import patiently
from mtc_core.tokens.text import Document
from mtc_core.tokens.token_writer import TokenWriter
from tests.core.tiny_text import BYTES, made_up_documents, write_jsonl

OFF, GONE, UNREADABLE = ReadingStopped("off"), NotOpened("gone"), DataError("unreadable")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WAITS_S", (0.01, 0.01, 0.01))


def reader(*answers: object) -> Callable[[], object]:
    left = list(answers)

    def read() -> object:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return read


def nothing(*_: str) -> None:
    pass


@pytest.mark.parametrize("answers", [("text",), (OFF, "text"), (OFF, GONE, OFF, "text")])
def test_what_comes_in_the_end_is_what_is_read(answers: tuple[object, ...]) -> None:
    assert patiently(reader(*answers), nothing, nothing) == "text"


@pytest.mark.parametrize(
    "answers,raised",
    [
        ((OFF, GONE, GONE, GONE), OFF),  # the last word is what was wrong first
        ((GONE,), GONE),  # a misspelt name
        ((UNREADABLE,), UNREADABLE),
        ((OFF, UNREADABLE), UNREADABLE),  # no reason to go on asking
    ],
)
def test_what_is_raised(answers: tuple[object, ...], raised: Exception) -> None:
    with pytest.raises(DataError) as caught:
        patiently(reader(*answers), nothing, nothing)
    assert caught.value is raised


def test_who_waits_is_told_and_may_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WAITS_S", (60,))
    told = []

    def tell(what: str) -> None:
        told.append(what)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patiently(reader(OFF), nothing, tell)
    assert told == ["off; trying again in 60 s"]


def test_tokens_of_a_source_that_breaks_off_are_those_of_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first document, within batches, between windows, and where it does not open."""
    path = write_jsonl(tmp_path / "t.jsonl", made_up_documents(200))
    data = DataConfig(path=str(path), context_tokens=16, shuffle_tokens=256, holdout_tokens=64)

    def written(name: str) -> dict[str, bytes]:
        folder = tmp_path / name
        TokenWriter(folder, data, BYTES).ensure(10**6)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    monkeypatch.setattr(token_writer, "BATCH_DOCUMENTS", 7)
    wanted = written("whole")
    assert sum(name.endswith(".npy") for name in wanted) > 10
    documents, breaks = token_writer.documents, [0, 3, 60, 60, 61, 199, 200]
    opened = []

    def breaking(data: DataConfig, cursor: object) -> Iterator[Document]:
        opened.append(cursor)
        if len(opened) == 3:
            raise NotOpened("gone")
        for number, document in enumerate(documents(data, cursor), at(cursor)):
            if breaks and number == breaks[0]:
                raise ReadingStopped(f"off before {breaks.pop(0)}")
            yield document
        if breaks:
            raise ReadingStopped(f"off at the end, {breaks.pop(0)}")

    places = {str(document.after): n + 1 for n, document in enumerate(documents(data, None))}

    def at(cursor: object) -> int:
        return places[str(cursor)] if cursor else 0

    monkeypatch.setattr(token_writer, "documents", breaking)
    assert written("broken") == wanted
    assert len(opened) == 9 and not breaks
