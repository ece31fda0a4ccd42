"""Token ids and row masks on disk: what training and evaluation see, and all they see.

A folder `tokens/` of
    store.json                        what the tokens were made from
    calibration.{ids,rows}.npy        the halves of the holdout, int32 and uint8 [C, T]
    test.{ids,rows}.npy
    holdout.json                      written after both halves: the holdout is complete
    window-00000.{ids,rows}.npy       training contexts in reading order, one shuffle window each
    window-00000.json                 written after both arrays: the window is complete
    end.json                          the text has ended; there are no more windows
Windows count only once the holdout is complete. `token_writer` writes it, one process at a time.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtc_core.atomic import write_bytes_atomic
from mtc_core.errors import DataError
from mtc_core.tokens.holdout import Half
from mtc_core.tokens.packing import Contexts

STORE, HOLDOUT, END = "store.json", "holdout.json", "end.json"


@dataclass(frozen=True)
class Window:
    """One shuffle window of training contexts. record: counts, and where its text ends."""

    folder: Path
    index: int
    context_tokens: int
    record: dict[str, Any]

    @property
    def n_contexts(self) -> int:
        return self.record["contexts"]

    @property
    def n_rows(self) -> int:
        return self.record["rows"]

    def contexts(self) -> Contexts:
        """The arrays, mapped from disk. Raises DataError if they are missing or damaged."""
        return read_contexts(
            self.folder, window_name(self.index), (self.n_contexts, self.context_tokens)
        )


class TokenStore:
    """Reads a folder of tokens, which may still be growing: `refresh` sees what was added."""

    def __init__(self, folder: Path | str) -> None:
        """Raises DataError if there is no store in the folder."""
        self.folder = Path(folder)
        if not (self.folder / STORE).exists():
            raise DataError(f"{self.folder}: no tokens here; `run` writes them first")
        self.settings: dict[str, Any] = read_json(self.folder / STORE)["settings"]
        self.context_tokens: int = self.settings["data"]["context_tokens"]
        self.windows: list[Window] = []
        self.finished = False
        self._holdout: dict[str, Any] | None = None
        self.n_documents = 0  # whose text is here, held-out ones and copies of those included
        self.refresh()

    def refresh(self) -> None:
        """Take in what the writer has completed since."""
        if self._holdout is None and (self.folder / HOLDOUT).exists():
            self._holdout = read_json(self.folder / HOLDOUT)
        if self._holdout is None or self.finished:
            return
        # Before the windows: after it no window is added, so none can be missed.
        self.finished = (self.folder / END).exists()
        while (path := self.folder / f"{window_name(len(self.windows))}.json").exists():
            self.windows.append(
                Window(self.folder, len(self.windows), self.context_tokens, read_json(path))
            )
        if self.finished:
            self.n_documents = read_json(self.folder / END)["documents"]
        elif self.windows:
            self.n_documents = self.windows[-1].record["documents"]

    @property
    def holdout_complete(self) -> bool:
        return self._holdout is not None

    @property
    def train_rows(self) -> int:
        return sum(window.n_rows for window in self.windows)

    @property
    def train_tokens(self) -> int:
        """Positions in training contexts, rows or not."""
        return sum(window.n_contexts for window in self.windows) * self.context_tokens

    def holdout(self, half: Half) -> Contexts:
        """The contexts of one half. Raises DataError while the holdout is not complete."""
        if self._holdout is None:
            raise DataError(f"{self.folder}: the holdout is not complete; `run` completes it")
        return read_contexts(
            self.folder, half, (self._holdout["contexts"][half], self.context_tokens)
        )

    @property
    def held_keys(self) -> list[str]:
        """The keys of held-out documents (`holdout.text_key`), once the holdout is complete."""
        assert self._holdout is not None
        return self._holdout["held"]


def window_name(index: int) -> str:
    return f"window-{index:05d}"


def write_contexts(folder: Path, name: str, contexts: Contexts) -> None:
    """Both arrays of contexts, each whole or absent; the caller then writes the JSON."""
    for kind, array in (
        ("ids", contexts.ids_CT.astype(np.int32, copy=False)),
        ("rows", contexts.rows_CT.astype(np.uint8)),
    ):
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        write_bytes_atomic(folder / f"{name}.{kind}.npy", buffer.getvalue())


def read_contexts(folder: Path, name: str, shape: tuple[int, int]) -> Contexts:
    """Map both arrays from disk. Raises DataError unless they have this shape."""
    return Contexts(
        ids_CT=_mapped(folder / f"{name}.ids.npy", shape, np.int32),
        rows_CT=_mapped(folder / f"{name}.rows.npy", shape, np.uint8).view(np.bool_),
    )


def _mapped(path: Path, shape: tuple[int, int], dtype: type) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, str(error)) from error
    if array.shape != shape or array.dtype != dtype:
        raise _damaged(path, f"holds {array.dtype} {list(array.shape)}, not {list(shape)}")
    return array


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} is damaged or missing ({why}); delete the folder {path.parent} and run again: "
        f"it writes the same tokens"
    )
