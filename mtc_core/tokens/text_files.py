"""Documents of one local file, each with the position after it, so that reading can go on there.

Every reader yields (text, position); a position is JSON-able and fits the same reader. Text that is
empty or null comes as "". What is wrong with a file is a DataError that names file and line.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mtc_core.errors import DataError

SECTION_BYTES = 1000  # sections of a text file are joined until they reach this
SECTION_MAX_BYTES = 4096  # text without blank lines is cut at the next line end after this
LINE_MAX_BYTES = 1 << 16  # text without line ends is cut at the last space before this
PARQUET_BATCH_ROWS = 1024

Read = Iterator[tuple[str, Any]]


def read_txt(path: Path, column: str, position: Any) -> Read:
    """Sections of a UTF-8 text file; it has no columns."""
    try:
        with open(path, "rb") as file:
            yield from sections(file, str(path), position)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read ({error.strerror or error})")


def sections(file: IO[bytes], name: str, position: list[int] | None) -> Read:
    """Blank-line-separated sections joined up to about 1 kB; position is [byte, line].

    Cuts depend on nothing before a document, so reading resumes at any of its ends.
    """
    byte, line = position or (0, 0)
    file.seek(byte)
    parts: list[str] = []
    size = 0
    for raw in _lines_or_pieces(file):
        text = _decode(raw, name, line + 1, "utf-8" if byte else "utf-8-sig")
        byte += len(raw)
        line += raw.endswith(b"\n")
        blank = not text.strip()
        if not blank:
            parts.append(text.replace("\r\n", "\n"))
            size += len(raw)
        elif parts and parts[-1] != "\n":
            parts.append("\n")
        if size >= (SECTION_BYTES if blank else SECTION_MAX_BYTES):
            yield "".join(parts).strip("\n"), [byte, line]
            parts, size = [], 0
    if parts:
        yield "".join(parts).strip("\n"), [byte, line]


def _lines_or_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Lines; an overlong one (a corpus may have no line ends at all) in pieces cut at spaces."""
    while raw := file.readline(LINE_MAX_BYTES):
        if len(raw) == LINE_MAX_BYTES and not raw.endswith(b"\n"):
            cut = raw.rfind(b" ") + 1 or _character_start(raw)
            file.seek(cut - len(raw), 1)
            raw = raw[:cut]
        yield raw


def _character_start(raw: bytes) -> int:
    """Where the last UTF-8 character begins; the length itself if no character begins there."""
    start = len(raw) - 1
    while start > 0 and raw[start] & 0xC0 == 0x80:
        start -= 1
    return start or len(raw)


def _decode(raw: bytes, name: str, line: int, encoding: str = "utf-8") -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}:{line}: not UTF-8 ({error.reason}, byte {error.start + 1} of the line); "
            f"convert the file, e.g. iconv -f latin1 -t utf-8"
        ) from error


def read_jsonl(path: Path, column: str, position: list[int] | None) -> Read:
    """The column of one JSON object per line, plain or gzipped; position is [byte, line]."""
    byte, line = position or (0, 0)
    for raw in _raw_lines(path, byte):
        byte += len(raw)
        line += 1
        if raw.strip():
            where = f"{path}:{line}"
            text = _decode(raw, str(path), line, "utf-8-sig" if line == 1 else "utf-8")
            value = pick(_json_object(text, where), column, where)
            yield as_text(value, column, where), [byte, line]


def _raw_lines(path: Path, byte: int) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            file.seek(byte)
            yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip data is damaged or cut short ({error}); fetch or write it again"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _json_object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON ({error.msg}, column {error.colno}); "
            f"a .jsonl file holds one object on each line"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: found {type(value).__name__}, not a JSON object")
    return value


def read_parquet(path: Path, column: str, position: int | None) -> Read:
    """The column of a Parquet file, row group by row group; position counts rows."""
    import pyarrow
    import pyarrow.parquet

    start = position or 0
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if column not in (names := file.schema_arrow.names):
                raise NoColumn(column, names, str(path))
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row + rows <= start:
                    row += rows
                    continue
                for value in _parquet_values(file, group, column):
                    row += 1
                    if row > start:
                        yield as_text(value, column, f"{path}, row {row}"), row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file after row {row} ({error}); write it again"
        ) from error


def _parquet_values(file: Any, group: int, column: str) -> Iterator[Any]:
    for batch in file.iter_batches(PARQUET_BATCH_ROWS, row_groups=[group], columns=[column]):
        yield from batch.column(0).to_pylist()


def pick(record: dict[str, Any], column: str, where: str) -> Any:
    """The value of a column. Raises DataError that lists the columns there are."""
    if column not in record:
        raise NoColumn(column, list(record), where)
    return record[column]


class NoColumn(DataError):
    """names: the columns that there are."""

    def __init__(self, column: str, names: list[str], where: str) -> None:
        self.column, self.where = column, where
        self.names = ", ".join(map(str, names)) or "none"
        super().__init__(f"{where}: no column {column!r}; set data.column to one of: {self.names}")


def as_text(value: Any, column: str, where: str) -> str:
    """The value as text that UTF-8 can hold; null is empty text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{where}: column {column!r} holds {type(value).__name__} ({value!r:.40}), not text; "
            f"set data.column to a column of text"
        )
    # JSON can spell half a surrogate pair, which tokenizers refuse.
    return value.encode("utf-8", "replace").decode()
