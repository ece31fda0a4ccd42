"""The text that a suite is measured on: the test half of its own holdout, or a text of the user's.

C contexts · T positions of a context
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtc_core.errors import DataError
from mtc_core.seeds import digest
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.packing import Contexts, pack
from mtc_core.tokens.text import documents
from mtc_core.tokens.text_files import NoColumn
from mtc_core.tokens.token_store import TokenStore
from mtc_core.tokens.token_writer import cut
from mtc_core.tokens.tokenizer import TokenizerFacts
from orchestrator.evaluating.results import TEST
from orchestrator.run_folder.folder import RunFolder

OWN_TOKENS = 131_072  # of the user's text, at most, in reading order


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """name: of the folder of its results. path: as the user gave it; None: the test half."""

    name: str
    path: str | None
    contexts: Contexts

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "contexts": len(self.contexts.ids_CT),
            "rows": self.contexts.n_rows,
        }


def held_test_half(run: RunFolder) -> EvaluationText:
    """Raises DataError where the run's tokens are gone."""
    return EvaluationText(TEST, None, TokenStore(run.tokens).holdout("test"))


def _read(data: DataConfig) -> Iterator[str]:
    """Its documents. A mistake is about an option here, and no key of a manifest."""
    try:
        yield from (document.text for document in documents(data))
    except NoColumn as error:
        raise DataError(
            f"--text {error.where}: no column {error.column!r}, from which this run reads its "
            f"text; rename one in a copy of the file (it has {error.names})"
        ) from error
    except DataError as error:
        told = str(error)
        about = told.removeprefix("data.path: ")
        raise DataError(f"--text {about}" if about != told else f"--text: {told}") from error


def own_text(
    path: str,
    data: DataConfig,
    tokenizer: TokenizerFacts,
    say: Callable[[str], None],
    most: int | None = None,
) -> EvaluationText:
    """The first contexts of a text, cut as those of training. Named for its tokens, so that the
    same text finds its results again. most: tokens; None: OWN_TOKENS. Raises DataError."""
    most = most or OWN_TOKENS
    if path != data.path:  # of a Hub dataset, these are the training text's own
        data = replace(data, path=path, subset=None, revision="main")
    pieces: list[np.ndarray] = []
    read = 0
    for ids in _encoded(_read(data), tokenizer):
        pieces.append(ids)
        read += len(ids)
        if read >= most:
            say(f"{path}: its first {most:,} tokens")
            break
    text_ids = np.concatenate(pieces)[:most]
    contexts = pack(text_ids, data.context_tokens, tokenizer.bos_id, tokenizer.special_ids)
    if not len(contexts.ids_CT):
        raise DataError(
            f"--text {path} has {len(text_ids)} tokens, and a context of this run has "
            f"{data.context_tokens}; give more text"
        )
    return EvaluationText(f"text-{digest(contexts.ids_CT.tolist())[:8]}", path, contexts)


def _encoded(texts: Iterator[str], tokenizer: TokenizerFacts) -> Iterator[np.ndarray]:
    """Ids, int32, of each piece of a text, with EOS after the last. No more is tokenized than is
    asked for: a line of 10 MB by itself took 1.4 GB, for the first 0.5 MB of it."""
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    for text in texts:
        for piece in cut(text):
            yield np.array(tokenizer.encode_batch([piece])[0], np.int32)
        yield np.array(end, np.int32)


def contexts_digest(contexts: Contexts) -> str:
    """Differs where the ids or the rows of two texts do."""
    both = (contexts.ids_CT.tobytes(), contexts.rows_CT.tobytes())
    return hashlib.sha256(b"".join(both)).hexdigest()[:16]


def scored(contexts: Contexts) -> int:
    """Positions at which a prediction is scored: a row whose next token is one."""
    rows_CT = contexts.rows_CT
    return int(np.count_nonzero(rows_CT[:, :-1] & rows_CT[:, 1:]))


def spread(contexts: Contexts, tokens: int) -> Contexts:
    """Whole contexts, evenly spread over all, of about as many scored positions as asked for."""
    count = len(contexts.ids_CT)
    wanted = min(count, -(-tokens * count // max(1, scored(contexts))))
    chosen = np.unique(np.linspace(0, count - 1, max(1, wanted)).round().astype(int))
    return Contexts(contexts.ids_CT[chosen], contexts.rows_CT[chosen])
