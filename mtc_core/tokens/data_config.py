"""Where training text comes from and how it is cut: frozen values that decide nothing by
themselves. Loads without torch and numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mtc_core.errors import ConfigError


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
            raise ConfigError("; ".join(problems))

    @property
    def window_contexts(self) -> int:
        """Contexts of a full shuffle window."""
        return self.shuffle_tokens // self.context_tokens

    @property
    def half_contexts(self) -> int:
        """Contexts that fill one half of the holdout."""
        return self.holdout_tokens // (2 * self.context_tokens)


def data_problems(data: DataConfig) -> Iterator[str]:
    """Yield one sentence for everything in the settings that no text could satisfy."""
    for name in ("path", "column", "split", "revision"):
        if not getattr(data, name).strip():
            yield f"{name} must not be empty"
    if data.subset is not None and not data.subset.strip():
        yield "subset must name a configuration of the dataset, or be left out"
    if data.context_tokens < 2:
        yield (
            f"context_tokens must be at least 2 (the first position is never trained), "
            f"found {data.context_tokens}"
        )
        return
    if data.holdout_tokens < 2 * data.context_tokens:
        yield (
            f"holdout_tokens = {data.holdout_tokens} is too small: each of its two halves needs "
            f"one context of {data.context_tokens} tokens"
        )
    if data.shuffle_tokens < data.context_tokens:
        yield (
            f"shuffle_tokens = {data.shuffle_tokens} is smaller than one context of "
            f"{data.context_tokens} tokens"
        )
