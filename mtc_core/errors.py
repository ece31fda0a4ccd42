"""What a user can get wrong, as exceptions.

    MtcError                      anything a user can mend: one message, exit 2
    ├── SiteError                 a site that does not exist, or not in this model
    ├── ConfigError               sizes, counts or names that cannot be trained
    ├── DataError                 text that is missing, unreadable or too short
    │   ├── NotOpened             a dataset that is misspelt, or whose network is away
    │   └── ReadingStopped        a source that broke off; the same request may do later
    ├── ModelError                weights or a tokenizer that cannot be loaded
    ├── CheckpointError           a checkpoint or a saved transcoder that cannot be used
    ├── ExportError               a format that cannot express a suite, a folder that is taken
    ├── HubError                  the Hugging Face Hub or W&B: unreachable, refusing, or lacking it
    └── TrainingStopped           one transcoder cannot go on (loss not finite, constant site)

A message says what was found, where, why it matters, and what to change. Our own mistakes are
asserts. Every class takes one string, so that it survives pickling between processes.
"""

from __future__ import annotations

from collections.abc import Iterable


class MtcError(Exception):
    """Base of every error that a user can mend; its text is the whole message."""


class SiteError(MtcError):
    """A site that is misspelt, out of range, or absent from this model."""


class ConfigError(MtcError):
    """A transcoder or training setting that cannot be trained.

    problems: the same field by field, (field, sentence), where single fields are at fault."""

    problems: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, problems: Iterable[tuple[str, str]]) -> ConfigError:
        """One error for several problems."""
        listed = tuple(problems)
        error = cls("; ".join(sentence for _, sentence in listed))
        error.problems = listed
        return error


class DataError(MtcError):
    """Text that is missing, unreadable, or too short for the request."""


class NotOpened(DataError):
    """A dataset that does not open: there is none of that name, or nothing can be reached now."""


class ReadingStopped(DataError):
    """A source of text that broke off while it was read: try again, and it goes on from there."""


class ModelError(MtcError):
    """A model or tokenizer that cannot be loaded or does not fit its description."""


class CheckpointError(MtcError):
    """A checkpoint or saved transcoder that is missing, damaged, or of another shape."""


class HubError(MtcError):
    """The Hugging Face Hub or W&B cannot be reached, refuses, or lacks what was asked for."""


class ExportError(MtcError):
    """A suite that a format cannot express, or a folder that an export would replace."""


class TrainingStopped(MtcError):
    """One transcoder cannot go on; the rest of its suite can."""
