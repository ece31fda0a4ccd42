"""From `data.path` to documents, in an order that never changes, resumable after any of them.

Local files, folders of them and the documentation inside Python are read here and in `text_files`,
the Hub in `text_hub`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mtc_core.errors import DataError
from mtc_core.places import is_there, place
from mtc_core.seeds import digest
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.text_files import read_jsonl, read_parquet, read_txt, sections

PYTHON_DOCS = "python-docs"
READERS: dict[str, Callable[..., Iterator]] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".parquet": read_parquet,
}
Cursor = dict[str, Any]  # JSON-able; only the code below looks inside


class Document(NamedTuple):
    """One text and the position from which reading goes on with the next."""

    text: str
    after: Cursor


def documents(data: DataConfig, cursor: Cursor | None = None) -> Iterator[Document]:
    """Yield the documents after `cursor` (None: all), leaving out empty ones.

    Raises DataError for anything wrong with the text, and if there is no document at all.
    """
    found = cursor is not None
    for text, after in _positions(data, cursor):
        if text and not text.isspace():
            found = True
            yield Document(text, after)
    if not found:
        raise DataError(f"data.path: {data.path} holds no text (column {data.column!r})")


def _positions(data: DataConfig, cursor: Cursor | None) -> Iterator[tuple[str, Cursor]]:
    index, position = (cursor["file"], cursor["at"]) if cursor else (0, None)
    for file, read in list(enumerate(_sources(data)))[index:]:
        for text, at in read(position):
            yield text, {"file": file, "at": at}
        position = None


def _sources(data: DataConfig) -> list[Callable[[Any], Iterator]]:
    """One function per file (or for the whole of another source) that reads from a position."""
    if data.path == PYTHON_DOCS:
        return [lambda at: sections(io.BytesIO(_python_docs()), PYTHON_DOCS, at)]
    if is_hub(data):
        from mtc_core.tokens.text_hub import open_dataset, read_dataset

        return [lambda at: read_dataset(open_dataset(data), data, at)]
    return [_reader_of(path, data.column) for path in _files(data)]


def _reader_of(path: Path, column: str) -> Callable[[Any], Iterator]:
    read = READERS[_suffix(path)]
    return lambda at: read(path, column, at)


def is_hub(data: DataConfig) -> bool:
    """Whether data.path names a dataset on the Hub: it is no local path and looks like none."""
    path = data.path
    local = path == PYTHON_DOCS or path.startswith((".", "/", "~")) or path.endswith("/")
    return not (
        local or path.count("/") > 1 or _suffix(Path(path)) in READERS or is_there(place(path))
    )


def is_elsewhere(data: DataConfig) -> bool:
    """Whether data.path is a local path that this machine does not have."""
    local = data.path != PYTHON_DOCS and not is_hub(data)
    return local and not is_there(place(data.path))


def dataset_commit(data: DataConfig) -> str | None:
    """The commit of a dataset on the Hub, to pin it for the life of a run; None for local text."""
    if not is_hub(data):
        return None
    from mtc_core.tokens.text_hub import hub_commit

    return hub_commit(data)


def source_listing(data: DataConfig) -> list[list[Any]]:
    """[name, bytes] of every local file, to notice text that changed between two readings.

    Empty for the Hub, whose text is pinned by a commit. Raises DataError as `documents` does.
    """
    if is_hub(data):
        return []
    if data.path == PYTHON_DOCS:
        docs = _python_docs()
        return [[f"{PYTHON_DOCS} {digest(docs.decode())[:16]}", len(docs)]]
    return [[path.name, path.stat().st_size] for path in _files(data)]


def text_bytes(listing: list[list[Any]]) -> int | None:
    """Bytes of the local files that `source_listing` found: no fewer than their tokens. None where
    that does not hold or is not known: compressed text, text of the Hub."""
    packed = any(str(name).lower().endswith((".gz", ".parquet")) for name, _ in listing)
    return None if packed or not listing else sum(size for _, size in listing)


def text_bytes_here(data: DataConfig) -> int | None:
    """The same for settings; None as well if this machine does not have the text."""
    with suppress(DataError):
        return text_bytes(source_listing(data))
    return None


def _files(data: DataConfig) -> list[Path]:
    """The files behind a local data.path, sorted by name."""
    try:
        return _listed(data)
    except OSError as error:
        raise DataError(f"data.path: {data.path} cannot be read ({error.strerror})") from None


def _listed(data: DataConfig) -> list[Path]:
    path = place(data.path)
    if not is_there(path):
        raise DataError(f"data.path: {data.path} does not exist (looked at {path.absolute()})")
    if path.is_dir():
        entries = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        files = [entry for entry in entries if _suffix(entry) in READERS]
        if not files:
            names = ", ".join(entry.name for entry in entries[:5]) or "no files"
            raise DataError(
                f"data.path: folder {path} has no file that can be read "
                f"({', '.join(READERS)}); found {names}"
            )
    elif _suffix(path) in READERS:
        files = [path]
    else:
        raise DataError(
            f"data.path: {path} has an unknown extension {_suffix(path)!r}; "
            f"known are {', '.join(READERS)}"
        )
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"data.path: {file} is empty (0 bytes); fill or remove it")
    return files


def _suffix(path: Path) -> str:
    """`.jsonl.gz` as a whole, else the last extension."""
    suffix = path.suffix.lower()
    return "".join(path.suffixes[-2:]).lower() if suffix == ".gz" else suffix


def _python_docs() -> bytes:
    """The reference prose behind `help()`, topics in the order of their names."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            f"data.path: this Python ships no pydoc_data ({error}), which {PYTHON_DOCS} reads; "
            f"install the full standard library or name a text file"
        ) from error
    return "\n\n".join(topics[name] for name in sorted(topics)).encode()
