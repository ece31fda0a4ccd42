"""What the weights that a run starts from were trained on: the text of the run that they are of,
and of those that it started from itself.

The holdout is a function of text, tokenizer, `context_tokens` and `holdout_tokens`, so another run
over the same text may hold out documents that an earlier one trained on. Figures of these would be
figures of training text. Which documents a run held out is on disk; which it trained on is not, and
on the same text it may have been all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtc_core.errors import ConfigError, DataError
from mtc_core.tokens.token_store import STORE, TokenStore, read_json
from orchestrator.run_folder.folder import RunFolder

_TEXT = ("subset", "column", "split")  # of data: which text, not how it is cut


def ancestors(starts: Mapping[str, Mapping[str, str]]) -> list[Path]:
    """Folders of the runs that trained these weights, nearest first, as far as they are known.
    starts: `init_from` of pins."""
    found: list[Path] = []
    waiting = [starts]
    while waiting:
        for start in waiting.pop(0).values():
            run = Path(start["folder"]).parents[2]  # RUN/transcoders/ID/final
            if run not in found:
                found.append(run)
                waiting.append(_starts_of(run) or {})
    return found


def _starts_of(run: Path) -> dict[str, dict[str, str]] | None:
    """None where its record is gone or damaged: its weights are sound all the same, and what cannot
    be told is no reason to refuse them."""
    try:
        recorded = RunFolder(run.parent, run.name).recorded()
    except ConfigError:
        return None
    return dict(recorded["pins"].get("init_from") or {}) if recorded else None


def unknown(starts: Mapping[str, Mapping[str, str]]) -> list[str]:
    """For people: which of these runs no longer tell what they held out, or started from."""
    told = []
    for run in ancestors(starts):
        if _tokens(run) is None:
            told.append(
                f"init_from: {run} has no tokens/holdout.json any more, so it cannot be told "
                "whether what is held out here was trained on there; with its data.path, "
                "holdout_tokens, context_tokens and tokenizer it was not"
            )
        if _starts_of(run) is None:
            told.append(
                f"init_from: {run} has no sound resolved.json any more, so it cannot be told what "
                "its weights were trained on before"
            )
    return told


def check_held_out(mine: TokenStore, starts: Mapping[str, Mapping[str, str]]) -> None:
    """Whether what a run holds out was held out of what trained these weights, too. Raises
    ConfigError."""
    held = set(mine.held_keys)
    for run in ancestors(starts):
        theirs = _tokens(run)
        if theirs is None:
            continue
        shared = held & set(theirs.held_keys)
        if len(shared) < len(held) and _may_have_trained_on(mine, theirs, len(shared)):
            data = theirs.settings["data"]
            raise ConfigError(
                f"init_from: {len(held) - len(shared)} of {len(held)} documents that this run "
                f"holds out were not held out by {run}, from whose weights it starts: they may "
                "have been trained on, and the figures of this run would be no figures of unseen "
                f"text. Set data.holdout_tokens: {data['holdout_tokens']} and data.context_tokens: "
                f"{data['context_tokens']} as there, with another tokenizer fewer holdout_tokens, "
                "or give other text (data.path)"
            )


def _may_have_trained_on(mine: TokenStore, theirs: TokenStore, shared: int) -> bool:
    """Whether what is held out here alone may have been training text there. shared: documents
    that both hold out."""
    if _text_of(mine) == _text_of(theirs):
        return True
    # A document or two are in many texts. One that has grown has most of those of before, and holds
    # out of its old part no others as long as no more are asked for.
    if 2 * shared < min(len(set(mine.held_keys)), len(set(theirs.held_keys))):
        return False
    here, there = mine.settings["data"], theirs.settings["data"]
    alike = here["context_tokens"] == there["context_tokens"]
    return not (alike and here["holdout_tokens"] <= there["holdout_tokens"])


def _tokens(run: Path) -> TokenStore | None:
    """None where they do not tell what was held out."""
    try:
        store = TokenStore(run / "tokens")
    except DataError:
        return None
    return store if store.holdout_complete else None


def _text_of(store: TokenStore) -> tuple[Any, ...]:
    sources = read_json(store.folder / STORE)["sources"]
    data = store.settings["data"]
    # A copy elsewhere has files of the same names and sizes; on the Hub there are none to look at.
    where = None if sources else data["path"]
    return (where, *(data[key] for key in _TEXT), store.settings["identity"], sources)
