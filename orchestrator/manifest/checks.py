"""Mistakes that no single key shows: between keys, and against the model's shape where known.

Works on a `Draft`, the parts of a manifest that could be read, so that a typo in one section does
not hide a mistake in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mtc_core.errors import ConfigError, SiteError
from mtc_core.model.model_shape import ModelShape
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
from orchestrator.messages import KeyPath, Problem, raise_problems

Mistake = tuple[KeyPath, str]


@dataclass(frozen=True, slots=True)
class Draft:
    """The sound parts of a manifest; None, or a missing entry, stands for what has a mistake."""

    seed: int
    model: ModelSection | None
    data: DataSection | None
    train: TrainSection | None
    defaults: TranscoderFields | None
    resources: ResourcesSection | None
    entries: dict[int, Entry]

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
    def without(cls, wrong: list[KeyPath], raw: Mapping[str, Plain]) -> Draft:
        """What is left of a raw manifest without the sections and entries that hold `wrong`."""

        def sound(*path: str | int) -> bool:
            return not any(p[: len(path)] == path[: len(p)] for p in wrong)

        def part(name: str) -> Plain:
            return raw.get(name, {})

        entries = raw.get("transcoders")
        return cls(
            count(0).read(raw["seed"]) if "seed" in raw and sound("seed") else 0,
            ModelSection.model_validate(part("model")) if sound("model") else None,
            DataSection.model_validate(part("data")) if sound("data") else None,
            TrainSection.model_validate(part("train")) if sound("train") else None,
            TranscoderFields.model_validate(part("defaults")) if sound("defaults") else None,
            ResourcesSection.model_validate(part("resources")) if sound("resources") else None,
            {
                index: Entry.model_validate(entry)
                for index, entry in enumerate(entries if isinstance(entries, list) else [])
                if sound("transcoders", index)
            },
        )

    def expansion(self, shape: ModelShape | None) -> Expansion:
        """The specs of the sound entries; none while what they inherit is not sound."""
        if self.defaults is None:
            return Expansion()
        fallback = fallbacks(self.defaults, self.seed, self.train.lr if self.train else AUTO)
        return expand_entries(self.entries, fallback, shape.n_layers if shape else None)


def check_model(manifest: Manifest, shape: ModelShape) -> None:
    """Raise ManifestError for everything in a manifest that this model cannot give."""
    mistakes = mistakes_across(Draft.of(manifest), shape)
    raise_problems(Problem(manifest.mark(path), path, text) for path, text in mistakes)


def mistakes_across(draft: Draft, shape: ModelShape | None) -> list[Mistake]:
    """Every mistake between keys, and against the shape if it is known."""
    expansion = draft.expansion(shape)
    mistakes = list(expansion.problems)
    if draft.train:
        mistakes += _of_train(draft.train)
    if draft.data:
        mistakes += _of_data(draft.data)
    if draft.resources:
        mistakes += _of_resources(draft.resources)
    if shape:
        mistakes += _of_sites(expansion, draft, shape)
        if draft.data and shape.max_context and draft.data.context_tokens > shape.max_context:
            text = (
                f"{draft.data.context_tokens} is more than the {shape.max_context} positions that "
                "the model has"
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


def _of_data(data: DataSection) -> Iterator[Mistake]:
    try:
        data.config()
    except ConfigError as error:
        yield ("data",), str(error)


def _of_resources(resources: ResourcesSection) -> Iterator[Mistake]:
    if resources.cells != "auto" and resources.cells > 1 and ":" in resources.device:
        text = (
            f'{resources.cells} cells need a GPU each, and resources.device "{resources.device}" '
            "names one; use device: cuda, or cells: 1"
        )
        yield ("resources", "cells"), text


def _of_sites(expansion: Expansion, draft: Draft, shape: ModelShape) -> list[Mistake]:
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
