"""What is told of each latent, JSON-able: the one source of latents.jsonl and of the pages.

    latent, group, fired, density, mean, max     group counts from 1; mean of the rows it is on
    contexts    strongest first: value, context, position, text, spans [[begin, end, value], …] of
                the characters of tokens on which it is on, and peak, which of them is the largest
    promoted, suppressed    [[token, effect], …], or null where that is not known
    nearest     [[latent, cosine], …] by decoder
    parent      null, or latent, both (rows on which both are on), share (of the rows on which this
                one is), density (the parent's, of all rows)
    children    numbers of latents that have it as their parent

A latent that was never on has the first three alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from mtc_core.features.logits import Promoted, Readout, promoted_tokens
from mtc_core.features.neighbours import nearest_by_decoder
from mtc_core.features.parents import children_of
from mtc_core.features.study import FeatureStudy
from mtc_core.tokens.packing import Contexts
from mtc_core.tokens.pieces import Piece, TokenText

TOKENS, NEAREST = 10, 5
CHECK_EVERY = 256
Record = dict[str, Any]


class Records:
    """Of one transcoder; each is made when it is asked for."""

    def __init__(
        self,
        study: FeatureStudy,
        contexts: Contexts,
        tokens: TokenText,
        readout: Readout | None,
        no_tokens: str,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """no_tokens: why promoted tokens are not known, where they are not. check: called now and
        then; may raise."""
        tc, firing = study.transcoder, study.firing
        self.no_tokens = no_tokens
        self.rows = firing.rows
        self.fired = firing.fired_F.tolist()
        self.alive = sum(1 for fired in self.fired if fired)
        self._check = check
        self._contexts, self._tokens = contexts, tokens
        self._mean, self._max = firing.mean_F.tolist(), firing.max_F.tolist()
        ends = torch.tensor(tc.spec.widths)
        self._group = (torch.bucketize(torch.arange(tc.d_sae), ends, right=True) + 1).tolist()
        parents, both = study.parents()
        self.parents, self._both = parents.tolist(), both.tolist()
        self._children = children_of(self.parents)
        self._nearest = [side.tolist() for side in nearest_by_decoder(tc.W_dec, NEAREST)]
        check()
        self._effects = (
            None if readout is None else _lists(promoted_tokens(readout, tc.W_dec, TOKENS))
        )
        strongest = study.strongest
        self._values = strongest.values_Fn.cpu().numpy()
        self._numbers = strongest.contexts_Fn.cpu().numpy()
        self._positions = strongest.positions_Fn.cpu().numpy()
        self._acts = strongest.acts_FnW.cpu().numpy()
        self._window = strongest.window
        self._pieces: dict[int, tuple[list[Piece], list[int]]] = {}

    def __len__(self) -> int:
        return len(self.fired)

    def __iter__(self) -> Iterator[Record]:
        for latent in range(len(self)):
            if latent % CHECK_EVERY == 0:
                self._check()
            yield self.of(latent)

    def of(self, latent: int) -> Record:
        """What the docstring of this module lists."""
        fired = self.fired[latent]
        record: Record = {"latent": latent, "group": self._group[latent], "fired": fired}
        if not fired:
            return record
        return {
            **record,
            "density": _short(fired / self.rows),
            "mean": _short(self._mean[latent]),
            "max": _short(self._max[latent]),
            "contexts": list(self._strongest(latent)),
            **self._tokens_of(latent),
            "nearest": [
                [int(other), round(cosine, 3)]
                for other, cosine in zip(*(side[latent] for side in self._nearest), strict=True)
            ],
            "parent": self._parent(latent),
            "children": self._children.get(latent, []),
        }

    def _parent(self, latent: int) -> Record | None:
        parent, both = self.parents[latent], self._both[latent]
        if parent < 0:
            return None
        return {
            "latent": parent,
            "both": both,
            "share": _short(both / self.fired[latent]),
            "density": _short(self.fired[parent] / self.rows),
        }

    def _tokens_of(self, latent: int) -> Record:
        if self._effects is None:
            return {"promoted": None, "suppressed": None}
        up, ups, down, downs = (side[latent] for side in self._effects)
        name = self._tokens.text
        return {
            "promoted": [[name(id), _short(value)] for id, value in zip(up, ups, strict=True)],
            "suppressed": [
                [name(id), _short(value)] for id, value in zip(down, downs, strict=True)
            ],
        }

    def _strongest(self, latent: int) -> Iterator[Record]:
        for i, value in enumerate(self._values[latent].tolist()):
            if value > 0:
                number, position = (
                    int(side[latent, i]) for side in (self._numbers, self._positions)
                )
                around = self._around(number, position, self._acts[latent, i])
                yield {
                    "value": _short(value),
                    "context": number,
                    "position": position,
                    **around,
                }

    def _around(self, number: int, position: int, acts_W: np.ndarray) -> Record:
        """The text of a window, and where in it the latent is on. Tokens that share a character are
        one span, with the larger value."""
        pieces, piece_of = self._pieces_of(number)
        first = position - self._window
        last = min(len(piece_of), first + len(acts_W)) - 1
        values = dict(zip(range(first, first + len(acts_W)), acts_W.tolist(), strict=True))
        text, peak = "", 0
        spans: list[list[Any]] = []
        for piece in pieces[piece_of[max(0, first)] : piece_of[last] + 1]:
            value = max(values.get(place, 0.0) for place in range(piece.first, piece.end))
            if value > 0:
                if piece.first <= position < piece.end:
                    peak = len(spans)
                spans.append([len(text), len(text) + len(piece.text), _short(value)])
            text += piece.text
        return {"text": text, "spans": spans, "peak": peak}

    def _pieces_of(self, number: int) -> tuple[list[Piece], list[int]]:
        """Of a context, and which of them each position is in."""
        if number not in self._pieces:
            pieces = self._tokens.pieces(self._contexts.ids_CT[number].tolist())
            piece_of = [i for i, p in enumerate(pieces) for _ in range(p.first, p.end)]
            self._pieces[number] = pieces, piece_of
        return self._pieces[number]


def _lists(promoted: Promoted) -> list[list[list[Any]]]:
    sides = (
        promoted.promoted_Fm,
        promoted.promotes_Fm,
        promoted.suppressed_Fm,
        promoted.suppresses_Fm,
    )
    return [side.tolist() for side in sides]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
