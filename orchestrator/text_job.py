"""The text of a run, from its source to tokens on disk: all that may need `transformers` before
the model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtc_core.model.model_source import load_tokenizer
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.token_writer import TokenWriter
from mtc_core.tokens.tokenizer import TokenizerFacts
from orchestrator.run_folder.lineage import check_held_out


@dataclass(frozen=True, slots=True, kw_only=True)
class TextJob:
    """What text is to be there, and where. starts: of weights that must not have been trained on
    what is held out."""

    model: str
    commit: str
    trust_remote_code: bool
    vocab_size: int
    data: DataConfig
    dataset: str | None
    folder: Path
    rows: int
    starts: dict[str, dict[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> TextJob:
        return cls(
            **{**given, "data": DataConfig(**given["data"]), "folder": Path(given["folder"])}
        )


def write_text(given: dict[str, Any], progress: Callable[[int, str], None]) -> None:
    """Of a TextJob's dict. Goes on where it was interrupted, and may be killed at any moment.

    Raises DataError, and ConfigError where the weights that the run starts from may have been
    trained on what it holds out."""
    job = TextJob.from_dict(given)
    tokenizer = load_tokenizer(job.model, job.commit, trust_remote_code=job.trust_remote_code)
    facts = TokenizerFacts.from_hf(tokenizer, job.vocab_size)
    writer = TokenWriter(job.folder, job.data, facts, job.dataset)
    if job.starts:
        check_held_out(writer.ensure(1, progress), job.starts)  # before all of a long text is read
    writer.ensure(job.rows, progress)
