"""Splices transcoders into their model, one at a time and all together, and measures what it says.

Every chunk of contexts is run clean, then once for each variant of each transcoder:

    whole      all rows reconstructed by the whole dictionary
    ordinary   the same, but extreme rows keep the model's own tensor
    zero mean  ablations: nothing, or the mean of the target, in its place
    prefix-i   the first i groups only, where asked for

Chunks are a function of the model and the contexts alone, and totals are saved between them, so
that an interrupted measurement goes on to the same bits.

C contexts · T positions of a context · V vocabulary · N rows
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mtc_core.errors import DataError, ModelError
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import Site
from mtc_core.splice.edited import EditedModel, Replacement, Tensors, check_spliceable
from mtc_core.splice.score import CHUNK, Scored, figures, score
from mtc_core.transcoder import MatryoshkaTranscoder

LOGITS = 1 << 25  # of a chunk, unless one context has more: 128 MiB in float32
ABLATIONS = ("zero", "mean")
JOINT = "joint"
NOT_FINITE = "the model's predictions are not finite with it; train with model.dtype: float32"

Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Stand:
    """What is put in the place of one target: variants by name, and which rows are extreme."""

    source: Site
    target: Site
    variants: dict[str, Predict]
    is_extreme: Callable[[Tensor, Tensor], Tensor]

    @classmethod
    def of(cls, transcoder: MatryoshkaTranscoder, prefixes: bool = False) -> Stand:
        """A transcoder that has a reference. prefixes: each prefix, too."""
        tc, reference = transcoder, transcoder.reference
        assert reference is not None
        check_spliceable(tc.spec.target)

        def upto(prefix: int) -> Predict:
            return lambda x, y: tc.decode(tc.encode(x), prefix, x)

        variants: dict[str, Predict] = {
            "whole": lambda x, y: tc(x),
            "zero": lambda x, y: torch.zeros_like(y),
            "mean": lambda x, y: reference.nu_O.to(y.dtype).expand_as(y),
        }
        if prefixes:
            variants |= {f"prefix-{i}": upto(i) for i in range(1, len(tc.spec.group_sizes))}
        return cls(tc.spec.source, tc.spec.target, variants, reference.is_extreme)

    def replacement(self, variant: str, rows_CT: Tensor, ordinary_CT: Tensor) -> Replacement:
        """Of a variant, or of `ordinary`: the whole dictionary on rows that are not extreme."""
        if variant == "ordinary":
            return Replacement(self.source, self.target, ordinary_CT, self.variants["whole"])
        return Replacement(self.source, self.target, rows_CT, self.variants[variant])


def joint_problem(stands: Mapping[str, Stand]) -> str | None:
    """Why these cannot be spliced all at once, or None."""
    targets = Counter(stand.target.tensor for stand in stands.values())
    tensor, count = max(targets.items(), key=lambda item: item[1])
    if count > 1:
        return f"{count} transcoders predict {Site.parse(tensor)}"
    return None if len(stands) > 1 else "there is one transcoder"


def working_bytes(context_tokens: int, vocabulary: int) -> int:
    """What a measurement needs beside model and transcoders, at most, in float32: a chunk's logits,
    clean, edited and what the model makes on the way to them; and what scoring makes of some."""
    logits = max(LOGITS, context_tokens * vocabulary)
    return 4 * (3 * logits + 7 * CHUNK * vocabulary)


class SpliceMeasurement:
    """Counts chunk after chunk; `state` and `load` let another process go on."""

    def __init__(
        self, loaded: LoadedModel, stands: Mapping[str, Stand], provider: Literal["hf", "bridge"]
    ) -> None:
        """stands: by id of the transcoder. Raises SiteError."""
        self.stands = dict(stands)
        sites = [site for one in stands.values() for site in (one.source, one.target)]
        self.model = EditedModel(loaded, sites, provider)
        self.joint_problem = joint_problem(stands)
        self.chunks_done = 0
        self.totals: dict[str, Tensor] = {}
        self.live: dict[str, bool] = {}
        self._vocabulary = loaded.shape.vocab_size

    def chunk_contexts(self, context_tokens: int) -> int:
        """Contexts of a chunk."""
        return max(1, LOGITS // (context_tokens * self._vocabulary))

    def run(self, ids_CT: Tensor, rows_CT: Tensor) -> Iterator[None]:
        """Measure on contexts from where `chunks_done` stands: one step for each pass."""
        size = self.chunk_contexts(ids_CT.shape[1])
        chunks = list(zip(ids_CT.split(size), rows_CT.split(size), strict=True))
        for ids, rows in chunks[self.chunks_done :]:
            found: dict[str, Tensor] = {}  # counted once the chunk is whole
            yield from self._chunk(ids, rows, found)
            for name, total in found.items():
                self.totals[name] = self.totals.get(name, torch.zeros_like(total)) + total
            self.chunks_done += 1

    def passes(self, contexts: int, context_tokens: int) -> int:
        """Steps that `run` has still to make over so many contexts."""
        variants = sum(len(one.variants) + 1 for one in self.stands.values())
        joint = 0 if self.joint_problem else 2 + len(ABLATIONS)
        chunks = -(-contexts // self.chunk_contexts(context_tokens))
        return (1 + variants + joint) * (chunks - self.chunks_done)

    def close(self) -> None:
        self.model.close()

    def state(self) -> dict[str, Tensor]:
        live = {f"live.{name}": torch.tensor(value) for name, value in self.live.items()}
        return {"chunks": torch.tensor(self.chunks_done), **self.totals, **live}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.chunks_done = int(state["chunks"])
        for name, value in state.items():
            if name.startswith("live."):
                self.live[name.removeprefix("live.")] = bool(value)
            elif name != "chunks":
                self.totals[name] = value.clone()

    def _chunk(self, ids_CT: Tensor, rows_CT: Tensor, found: dict[str, Tensor]) -> Iterator[None]:
        clean_CTV, tensors = self.model.clean(ids_CT)
        at = Scored.of(ids_CT, rows_CT)
        found["clean"] = score(clean_CTV, clean_CTV, at)
        yield
        masks = {name: rows_CT & ~_extreme(one, rows_CT, tensors) for name, one in self._each()}
        total = torch.zeros(0)
        for name, variant, replacements in self._edits(rows_CT, masks):
            alike = all(torch.equal(one.rows_CT, rows_CT) for one in replacements)
            if variant != "ordinary" or not alike:  # else it is the pass before
                logits_CTV, live = self.model.edited(ids_CT, replacements, tensors)
                self.live[name] = self.live.get(name, True) and live
                total = score(logits_CTV, clean_CTV, at)
            found[f"{name}/{variant}"] = total
            yield

    def _edits(
        self, rows_CT: Tensor, ordinary: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, str, list[Replacement]]]:
        """What is measured of a chunk: name, variant, and what is replaced. `ordinary` follows on
        `whole`."""
        for name, one in self._each():
            others = [variant for variant in one.variants if variant != "whole"]
            for variant in ("whole", "ordinary", *others):
                yield name, variant, [one.replacement(variant, rows_CT, ordinary[name])]
        if self.joint_problem is None:
            for variant in ("whole", "ordinary", *ABLATIONS):
                yield (
                    JOINT,
                    variant,
                    [
                        one.replacement(variant, rows_CT, ordinary[name])
                        for name, one in self._each()
                    ],
                )

    def _each(self) -> Iterable[tuple[str, Stand]]:
        return self.stands.items()

    def summary(self) -> dict[str, Any]:
        """All figures, JSON-able: `tokens` scored, `ce_clean`, and by transcoder and for all
        together what `figures` gives; `left_out` are those that make the model's predictions not
        finite, with the reason. Raises DataError if nothing was scored, ModelError if the model's
        own predictions are not finite."""
        tokens, ce, *_ = self.totals["clean"].tolist()
        if not tokens:
            raise DataError(
                "no position is followed by a token to predict; contexts need 3 tokens or more "
                "(data.context_tokens)"
            )
        if not math.isfinite(ce):
            raise ModelError(
                "the model's own predictions are not finite; train with model.dtype: float32"
            )
        joint_problem = self.joint_problem
        if joint_problem is None and not self._finite(JOINT):
            joint_problem = NOT_FINITE
        ce_clean = ce / tokens
        finite = [name for name in self.stands if self._finite(name)]
        return {
            "tokens": int(tokens),
            "ce_clean": ce_clean,
            "transcoders": {name: self._of(name, ce_clean) for name in finite},
            "joint": None if joint_problem else self._of(JOINT, ce_clean),
            "joint_problem": joint_problem,
            "left_out": {name: NOT_FINITE for name in self.stands if name not in finite},
        }

    def _finite(self, name: str) -> bool:
        return all(bool(total.isfinite().all()) for total in self._totals_of(name).values())

    def _totals_of(self, name: str) -> dict[str, Tensor]:
        """By variant."""
        keys = ((key.rpartition("/"), total) for key, total in self.totals.items())
        return {variant: total for (of, _, variant), total in keys if of == name}

    def _of(self, name: str, ce_clean: float) -> dict[str, Any]:
        of = self._totals_of(name)
        ablated = {one: float(of[one][1] / of[one][0]) for one in ABLATIONS}
        prefixes = sorted((key for key in of if key.startswith("prefix-")), key=_number)
        by_prefix = [figures(of[key], ce_clean, ablated) for key in prefixes]
        whole = figures(of["whole"], ce_clean, ablated)
        return {
            **whole,
            "extreme_left": figures(of["ordinary"], ce_clean, ablated),
            **{f"ce_{one}": value for one, value in ablated.items()},
            "by_prefix": [*by_prefix, whole] if by_prefix else None,
            "source": "live" if self.live[name] else "clean",
        }


def _number(key: str) -> int:
    return int(key.removeprefix("prefix-"))


def _extreme(one: Stand, rows_CT: Tensor, tensors: Tensors) -> Tensor:
    """Rows that are extreme for a transcoder, by the clean tensors: bool [C, T]."""
    x_CTD, y_CTD = tensors[one.source.tensor], tensors[one.target.tensor]
    extreme_CT = torch.zeros_like(rows_CT)
    here = rows_CT.to(x_CTD.device)
    extreme_CT[rows_CT] = one.is_extreme(x_CTD[here], y_CTD[here]).to(rows_CT.device)
    return extreme_CT
