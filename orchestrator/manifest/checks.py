"""Mistakes that no single key shows: between keys, and against the model's shape where known.

Works on a `Draft`, the parts of a manifest that could be read, so that a typo in one section does
not hide a mistake in another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mtc_core.credentials import redacted
from mtc_core.errors import ConfigError, DataError, SiteError
from mtc_core.model.gguf_package import PREFIX
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import is_local
from mtc_core.places import may_be_hub_id
from mtc_core.tokens.data_config import MAX_SHARE, DataConfig
from mtc_core.tokens.text import is_elsewhere, is_hub, source_listing, text_bytes
from orchestrator.manifest.expand import Expansion, expand_entries, fallbacks
from orchestrator.manifest.scalars import AUTO, count
from orchestrator.manifest.schema import (
    DataSection,
    Entry,
    Manifest,
    ModelSection,
    ResourcesSection,
    TrainSection,
    TranscoderFields,
)
from orchestrator.manifest.text import Plain
from orchestrator.messages import KeyPath, Problem, found, raise_problems

Mistake = tuple[KeyPath, str]
S = TypeVar("S", bound=BaseModel)
STAND_IN = "0.mlp_out"
DATA_SIZES = ("context_tokens", "holdout_tokens", "shuffle_tokens")

_OF_SPLIT = ("producers", "prefetch_steps")


@dataclass(frozen=True, slots=True)
class Draft:
    """What could be read of a manifest. None, or a missing entry, stands for what could not be read
    at all; `unread` are the paths of single keys that have a mistake of their own, and whose value
    here is a stand-in."""

    seed: int
    model: ModelSection | None
    data: DataSection | None
    train: TrainSection | None
    defaults: TranscoderFields | None
    resources: ResourcesSection | None
    entries: dict[int, Entry]
    unread: frozenset[KeyPath] = frozenset()

    @classmethod
    def of(cls, manifest: Manifest) -> Draft:
        return cls(
            manifest.seed,
            manifest.model,
            manifest.data,
            manifest.train,
            manifest.defaults,
            manifest.resources,
            dict(enumerate(manifest.transcoders)),
        )

    @classmethod
    def without(
        cls, unread: Iterable[KeyPath], unknown: Iterable[KeyPath], raw: Mapping[str, Plain]
    ) -> Draft:
        """What is left of a raw manifest without the keys at or around the paths `unread`, and
        without unknown ones."""
        wrong = frozenset(_key_of(path) for path in unread if path)
        dropped = wrong | {_key_of(path) for path in unknown}

        def part(section: type[S], value: Plain, *path: str | int, **stand_in: str) -> S | None:
            if path in wrong or not isinstance(value, dict):
                return None
            kept = {name: item for name, item in value.items() if (*path, name) not in dropped}
            try:
                return section.model_validate({**stand_in, **kept})
            except ValidationError:  # a required key is missing
                return None

        listed = raw.get("transcoders")
        entries = {
            index: part(Entry, entry, "transcoders", index, source=STAND_IN, target=STAND_IN)
            for index, entry in enumerate(listed if isinstance(listed, list) else [])
        }
        return cls(
            count(0).read(raw["seed"]) if "seed" in raw and ("seed",) not in wrong else 0,
            part(ModelSection, raw.get("model", {}), "model"),
            part(DataSection, raw.get("data", {}), "data", path="python-docs"),
            part(TrainSection, raw.get("train", {}), "train", tokens="1T"),
            part(TranscoderFields, raw.get("defaults", {}), "defaults"),
            part(ResourcesSection, raw.get("resources", {}), "resources"),
            {index: entry for index, entry in entries.items() if entry},
            wrong,
        )

    def knows(self, section: str, *keys: str) -> bool:
        """Whether none of these keys of a section has a mistake of its own."""
        return not any((section, key) in self.unread for key in keys)

    def expansion(self, shape: ModelShape | None) -> Expansion:
        """The specs of the sound entries; of the others, what is wrong beside what is unread."""
        defaults = self.defaults or TranscoderFields()
        fallback = fallbacks(defaults, self.seed, self.train.lr if self.train else AUTO)
        inherited = {str(path[1]) for path in self.unread if path[0] == "defaults" and path[1:]}
        inherited |= set() if self.defaults else set(TranscoderFields.model_fields)
        unread = {
            index: frozenset(
                {str(path[2]) for path in self.unread if path[:2] == ("transcoders", index)}
                | {name for name in inherited if getattr(entry, name, None) is None}
            )
            for index, entry in self.entries.items()
        }
        layers = shape.n_layers if shape else None
        return expand_entries(self.entries, fallback, layers, unread=unread)


def _key_of(path: KeyPath) -> KeyPath:
    """The key of a section, or of an entry, that a path lies in."""
    return path[: 3 if path[0] == "transcoders" else 2]


def check_model(manifest: Manifest, shape: ModelShape) -> None:
    """Raise ManifestError for everything in a manifest that this model cannot give."""
    mistakes = mistakes_across(Draft.of(manifest), shape)
    raise_problems(Problem(manifest.mark(path), path, text) for path, text in mistakes)


def mistakes_across(draft: Draft, shape: ModelShape | None) -> list[Mistake]:
    """Every mistake between keys, and against the shape if it is known."""
    expansion = draft.expansion(shape)
    mistakes = list(expansion.problems)
    if draft.train and draft.knows("train", "tokens", "batch_tokens"):
        mistakes += _of_train(draft.train)
    if draft.data:
        mistakes += _of_data(draft.data, draft)
    if draft.model and draft.knows("model", "name"):
        mistakes += _of_name("model", "name", draft.model.name, is_local(draft.model.name))
    if draft.resources and draft.knows("resources", "cells", "device"):
        mistakes += _of_cells(draft.resources)
    if draft.resources and draft.knows("resources", "topology", *_OF_SPLIT):
        mistakes += _of_topology(draft.resources)
    if shape:
        mistakes += mistakes_of_sites(expansion, shape)
    if draft.model and draft.model.provider == "hf":
        raw = {str(s) for e in expansion.specs for s in (e.source, e.target) if s.kind is None}
        if raw:
            text = f'"hf" does not know the hook {min(raw)}; use auto or bridge'
            mistakes.append((("model", "provider"), text))
    most = shape.max_context if shape else None
    if most and draft.data and draft.data.context_tokens > most:
        text = (
            f"{draft.data.context_tokens} is more than the {most} positions that the model has; "
            "lower it"
        )
        mistakes.append((("data", "context_tokens"), text))
    return mistakes


def _of_train(train: TrainSection) -> Iterator[Mistake]:
    if train.tokens < train.batch_tokens:
        text = (
            f"{train.tokens} is less than one step of {train.batch_tokens} rows; raise it, or "
            "lower train.batch_tokens"
        )
        yield ("train", "tokens"), text


def _of_data(data: DataSection, draft: Draft) -> Iterator[Mistake]:
    if draft.knows("data", *DATA_SIZES):
        try:
            data.config()
        except ConfigError as error:
            yield from ((("data", field), sentence) for field, sentence in error.problems)
    if draft.knows("data", "path") and "://" in data.path:
        text = (
            f"{found(redacted(data.path))} is an address, which nothing here reads: name a file or "
            "a folder, or a dataset of the Hub by its id"
        )
        yield ("data", "path"), text
    elif draft.knows("data", "path", "column", "split", "revision", "subset", "context_tokens"):
        yield from _of_text(DataConfig(path=data.path), data.context_tokens)


def _of_name(section: str, key: str, name: str, here: bool) -> Iterator[Mistake]:
    """A name that can be of nothing. here: it is of a file or folder, even if that is missing."""
    if not (here or name.startswith(PREFIX) or may_be_hub_id(name)):
        text = (
            f"{found(name)} is neither a file or folder here nor a Hub id, which is NAME or "
            "OWNER/NAME of letters, digits, -, _ and ."
        )
        yield (section, key), text


def _of_text(text: DataConfig, context: int) -> Iterator[Mistake]:
    """What is wrong with a text that is here."""
    if is_elsewhere(text):
        return
    yield from _of_name("data", "path", text.path, not is_hub(text))
    try:
        available = text_bytes(source_listing(text))
    except DataError as error:
        yield ("data", "path"), str(error).removeprefix("data.path: ")
        return
    needed = MAX_SHARE * 2 * context
    if available is not None and available < needed:
        told = (
            f"{text.path} ({available:,} B) has fewer tokens than a holdout needs: at most "
            f"one part in {MAX_SHARE} is held out, in two halves of at least one context of "
            f"{context} tokens; give {needed:,} bytes or more, or lower data.context_tokens"
        )
        yield ("data", "path"), told


def _of_topology(resources: ResourcesSection) -> Iterator[Mistake]:
    for name in _OF_SPLIT:
        value = getattr(resources, name)
        if resources.topology == "fused" and value != "auto":
            text = (
                f"{value} means nothing with topology: fused; take it out, or use topology: split"
            )
            yield ("resources", name), text


def _of_cells(resources: ResourcesSection) -> Iterator[Mistake]:
    if resources.cells != "auto" and resources.cells > 1 and ":" in resources.device:
        text = (
            f'{resources.cells} cells need a GPU each, and resources.device "{resources.device}" '
            "names one; use device: cuda, or cells: 1"
        )
        yield ("resources", "cells"), text


def mistakes_of_sites(expansion: Expansion, shape: ModelShape) -> list[Mistake]:
    """Sites that the model's family does not have; each entry tells it once."""
    mistakes: dict[KeyPath, str] = {}
    for spec, index in zip(expansion.specs, expansion.origins, strict=True):
        for end, site in (("source", spec.source), ("target", spec.target)):
            try:
                if (site.layer or 0) < shape.n_layers:  # out of range is told by the expansion
                    shape.check(site)
            except SiteError as error:
                mistakes.setdefault(("transcoders", index, end), str(error))
    return list(mistakes.items())
