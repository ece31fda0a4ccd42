"""Reads text once and writes tokens ahead of training.

Killed at any moment and called again, it ends with the same bytes: everything it writes is a pure
function of the text, the tokenizer and the settings. Once the holdout is complete it goes on after
the last whole window; before that (usually within the first window) it starts over, because only
then is the set of held-out texts, on which everything depends, on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mtc_core.atomic import remove_leftovers, write_json_atomic
from mtc_core.errors import DataError
from mtc_core.seeds import digest
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.holdout import HALVES, Holdout
from mtc_core.tokens.packing import Contexts, pack, text_per_context
from mtc_core.tokens.patience import patiently
from mtc_core.tokens.text import Cursor, Document, documents, source_listing
from mtc_core.tokens.token_store import (
    END,
    HOLDOUT,
    STORE,
    TokenStore,
    read_json,
    window_name,
    write_contexts,
)
from mtc_core.tokens.tokenizer import TokenizerFacts

FORMAT = 1
BATCH_DOCUMENTS = 512
BATCH_CHARACTERS = 1 << 20
PIECE_CHARACTERS = 1 << 20  # of a document that go through the tokenizer at once

Progress = Callable[[int, str], None]  # training ids so far, what is being done


class TokenWriter:
    """Writes the tokens of one run; `ensure` reads as much text as is asked for, and no more."""

    def __init__(
        self, folder: Path | str, data: DataConfig, tokenizer: TokenizerFacts, identity: Any = None
    ) -> None:
        """identity: whatever else pins the text (JSON-able), such as the commit of a Hub dataset.

        Raises DataError if the folder holds tokens of other settings, or local text is missing.
        """
        self.folder = Path(folder)
        self.data = data
        self.tokenizer = tokenizer
        self._width = text_per_context(data.context_tokens, tokenizer.bos_id)
        self._settings = {
            "data": asdict(data),
            "tokenizer": tokenizer.identity(),
            "identity": identity,
        }
        self._open_folder()
        self.store = TokenStore(self.folder)
        self._resume()
        self._interrupted = False

    def ensure(self, rows: int, progress: Progress | None = None) -> TokenStore:
        """Read until the holdout is complete and the windows hold `rows` rows, or the text ends.

        Raises DataError for unreadable text, or text too short for a holdout.
        """
        if self._interrupted:  # an error on the way left this object between two documents
            self._resume()
        self._interrupted = True
        while not self._has(rows):
            batch = self._next_batch(progress)
            for document, ids in zip(batch, self._encode(batch), strict=True):
                self._add(document, ids)
            if not batch:
                self._finish()
            if progress:
                missing = "" if self._holdout.complete else " (completing the holdout)"
                progress(self._n_ids, f"reading text{missing}")
        self._interrupted = False
        return self.store

    def _next_batch(self, progress: Progress | None) -> list[Document]:
        def again() -> None:
            # After the last document that was added: those of a batch that broke off are read anew.
            self._documents = self._read_from(self._cursor)

        def tell(what: str) -> None:
            if progress:
                progress(self._n_ids, what)

        return patiently(lambda: _next_batch(self._documents), again, tell)

    def _has(self, rows: int) -> bool:
        return self.store.finished or (
            self.store.holdout_complete and self.store.train_rows >= rows
        )

    def _open_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        path = self.folder / STORE
        if not path.exists():
            record = {
                "format": FORMAT,
                "fingerprint": digest(self._settings),
                "settings": self._settings,
                "sources": source_listing(self.data),
            }
            write_json_atomic(path, record)
            return
        record = read_json(path)
        if record["format"] != FORMAT or record["fingerprint"] != digest(self._settings):
            changed = "; ".join(_differences(record["settings"], self._settings))
            raise DataError(
                f"{self.folder} holds tokens made from other settings "
                f"({changed or 'another format'}); restore the settings, or give the run a new name"
            )

    def _resume(self) -> None:
        """Stand where the last whole window ends, or at the start."""
        record = self.store.windows[-1].record if self.store.windows else {}
        wanted_ids = len(HALVES) * self.data.half_contexts * self._width
        held = self.store.held_keys if self.store.holdout_complete else None
        self._holdout = Holdout(wanted_ids, held)
        self._cursor: Cursor | None = record.get("cursor")  # after the last whole document
        self._skip_ids: int = record.get("skip_ids", 0)  # of the next document
        self._n_documents: int = record.get("documents", 0)
        self._n_windows = len(self.store.windows)
        self._n_ids = sum(window.n_contexts for window in self.store.windows) * self._width
        self._pieces: list[np.ndarray] = []
        self._pending_ids = 0
        self._documents = self._read_from(self._cursor)

    def _read_from(self, cursor: Cursor | None) -> Iterator[Document]:
        """Documents after the cursor; the text is looked at when the first is asked for."""
        written_from = read_json(self.folder / STORE)["sources"]
        found = source_listing(self.data)
        if found != written_from:
            raise DataError(
                f"data.path: the text at {self.data.path} changed since its tokens were written "
                f"to {self.folder}: {written_from} (name, bytes) then, {found} now; "
                f"restore it, or give the run a new name"
            )
        yield from documents(self.data, cursor)

    def _encode(self, batch: list[Document]) -> list[np.ndarray]:
        """Ids of each document with EOS after it, int32."""
        if not batch:
            return []
        eos = self.tokenizer.eos_id
        end = np.array([] if eos is None else [eos], np.int32)
        found = [np.concatenate([ids, end], dtype=np.int32) for ids in self._ids_of(batch)]
        self.tokenizer.check(max((int(ids.max()) for ids in found if ids.size), default=0))
        return found

    def _ids_of(self, batch: list[Document]) -> Iterator[np.ndarray]:
        """Of each document. A very long one goes through the tokenizer in pieces: of each token it
        keeps some 200 bytes, and a line of 100 MB took 19 GB."""
        encode = self.tokenizer.encode_batch
        short = iter(encode([d.text for d in batch if len(d.text) <= PIECE_CHARACTERS]))
        for document in batch:
            if len(document.text) <= PIECE_CHARACTERS:
                yield np.array(next(short), np.int32)
            else:
                parts = (np.array(encode([piece])[0], np.int32) for piece in cut(document.text))
                yield np.concatenate(list(parts))

    def _add(self, document: Document, ids: np.ndarray) -> None:
        was_complete = self._holdout.complete
        if not self._holdout.takes(document.text, ids):
            fresh = ids[self._skip_ids :]
            self._pieces.append(fresh)
            self._pending_ids += len(fresh)
            self._n_ids += len(fresh)
        elif self._holdout.complete and not was_complete:
            self._commit_holdout()
        self._skip_ids = 0
        window_ids = self.data.window_contexts * self._width
        while self._pending_ids >= window_ids:
            rest = self._pending_ids - window_ids
            if rest:  # always ids of this document: any earlier surplus was cut before it
                self._commit_window(self._cursor, len(ids) - rest, self._n_documents)
            else:
                self._commit_window(document.after, 0, self._n_documents + 1)
        self._cursor = document.after
        self._n_documents += 1

    def _commit_window(self, cursor: Cursor | None, skip_ids: int, n_documents: int) -> None:
        """Write the first pending contexts, up to a window, and keep the ids behind them."""
        pending = np.concatenate(self._pieces)
        contexts = self._pack(pending[: self.data.window_contexts * self._width])
        name = window_name(self._n_windows)
        write_contexts(self.folder, name, contexts)
        record = {
            "contexts": len(contexts.ids_CT),
            "rows": contexts.n_rows,
            "documents": n_documents,
            "cursor": cursor,
            "skip_ids": skip_ids,
        }
        write_json_atomic(self.folder / f"{name}.json", record)
        self._pieces = [pending[len(contexts.ids_CT) * self._width :]]
        self._pending_ids = len(self._pieces[0])
        self._n_windows += 1
        self.store.refresh()

    def _commit_holdout(self) -> None:
        whole = self._pack(self._holdout.ids)
        halves = dict(zip(HALVES, whole.halves(), strict=True))
        for half, contexts in halves.items():
            if not len(contexts.ids_CT):
                raise self._too_short(f"too little for the {half} half of the holdout")
            write_contexts(self.folder, half, contexts)
        record = {
            "contexts": {half: len(contexts.ids_CT) for half, contexts in halves.items()},
            "rows": {half: contexts.n_rows for half, contexts in halves.items()},
            "held": sorted(self._holdout.held),
        }
        write_json_atomic(self.folder / HOLDOUT, record)
        self.store.refresh()

    def _finish(self) -> None:
        """The text has ended: complete the holdout and the last window, which may be partial."""
        if not self._n_windows and self._pending_ids < self._width:
            raise self._too_short("too little for training")
        if not self.store.holdout_complete:
            self._holdout.close()
            self._commit_holdout()
        if self._pending_ids >= self._width:
            self._commit_window(self._cursor, 0, self._n_documents)
        write_json_atomic(self.folder / END, {"documents": self._n_documents})
        self.store.refresh()

    def _pack(self, ids: np.ndarray) -> Contexts:
        facts = self.tokenizer
        return pack(ids, self.data.context_tokens, facts.bos_id, facts.special_ids)

    def _too_short(self, why: str) -> DataError:
        held, total = self._holdout.held_tokens, self._holdout.read_tokens
        return DataError(
            f"data.path: {self.data.path} has {total} tokens in {self._n_documents} documents, "
            f"{why}: whole documents are held out, at most a tenth of all tokens ({held} so far), "
            f"and each half needs a context of {self.data.context_tokens}. Give more text, shorter "
            f"documents, or a smaller data.context_tokens"
        )


def _next_batch(source: Iterator[Document]) -> list[Document]:
    """The next documents, enough to keep the tokenizer busy; empty at the end of the text."""
    batch: list[Document] = []
    characters = 0
    for document in source:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            break
    return batch


def cut(text: str) -> Iterator[str]:
    """Pieces that end before a space, where tokens of nearly all tokenizers end too."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        space = text.rfind(" ", start + 1, start + PIECE_CHARACTERS)
        end = space if space > 0 else start + PIECE_CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """`data.context_tokens: 128, now 256` for everything that differs between two settings."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield f"{path}: {old!r}, now {new!r}"
