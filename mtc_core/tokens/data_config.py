"""Where training text comes from and how it is cut: frozen values that decide nothing by
themselves. Loads without torch and numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtc_core.errors import ConfigError

BYTES_PER_TOKEN = 4  # of English, for most tokenizers: a guess for texts not yet read
MAX_SHARE = 10  # the holdout is at most one part in this many


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The text of a run. Everything here is identity.

    path is a local .txt, .jsonl, .jsonl.gz or .parquet file, a folder of them, `python-docs` (prose
    that every Python ships), or a dataset id on the Hugging Face Hub.
    subset, split, revision and streaming matter to the Hub only; column to all but text files.
    context_tokens counts the ids of one context, BOS included.
    holdout_tokens is shared by both halves; shuffle_tokens is the window that is shuffled.
    """

    path: str
    subset: str | None = None
    column: str = "text"
    split: str = "train"
    revision: str = "main"
    streaming: bool = True
    context_tokens: int = 128
    holdout_tokens: int = 65_536
    shuffle_tokens: int = 4_000_000

    def __post_init__(self) -> None:
        problems = list(data_problems(self))
        if problems:
            raise ConfigError.of(problems)

    @property
    def window_contexts(self) -> int:
        """Contexts of a full shuffle window."""
        return self.shuffle_tokens // self.context_tokens

    @property
    def half_contexts(self) -> int:
        """Contexts that fill one half of the holdout."""
        return self.holdout_tokens // (2 * self.context_tokens)


def data_problems(data: DataConfig) -> Iterator[tuple[str, str]]:
    """Yield (field, sentence) for everything in the settings that no text could satisfy."""
    for name in ("path", "column", "split", "revision"):
        if not getattr(data, name).strip():
            yield name, f"{name} must not be empty"
    if data.subset is not None and not data.subset.strip():
        yield "subset", "subset must name a configuration of the dataset, or be left out"
    context = data.context_tokens
    if context < 2:
        text = (
            f"context_tokens must be at least 2 (the first position is never trained), "
            f"found {context}"
        )
        yield "context_tokens", text
        return
    if data.holdout_tokens < 2 * context:
        text = (
            f"holdout_tokens = {data.holdout_tokens} is too small: each of its two halves needs "
            f"one context of {context} tokens; raise it to {2 * context} or more"
        )
        yield "holdout_tokens", text
    if data.shuffle_tokens < context:
        text = (
            f"shuffle_tokens = {data.shuffle_tokens} is smaller than one context of {context} "
            f"tokens; raise it to {context} or more"
        )
        yield "shuffle_tokens", text
