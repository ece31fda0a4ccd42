"""Forward passes in which reconstructions take the place of tensors.

A transcoder's target is replaced, never its source. In one pass the model is evaluated once, from
bottom to top: a transcoder reads the *live* source, with everything below it already replaced.
Positions that are not rows keep the tensor that the model computes there.

C contexts · T positions of a context · D width of a site · N rows
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mtc_core.capture.forward import Handle, Keep
from mtc_core.capture.provider import tap
from mtc_core.errors import SiteError
from mtc_core.model.model_source import LoadedModel
from mtc_core.sites import Site

Tensors = dict[str, Tensor]  # Site.tensor -> [C, T, D]


@dataclass(frozen=True, slots=True)
class Replacement:
    """`target` is replaced at `rows_CT` by what `predict` makes of the source's rows [N, d_in] and
    the target's own [N, d_out]."""

    source: Site
    target: Site
    rows_CT: Tensor
    predict: Callable[[Tensor, Tensor], Tensor]


class EditedModel:
    """Makes clean and edited passes of one model. Its hooks do nothing but during its own calls."""

    def __init__(
        self, loaded: LoadedModel, sites: Iterable[Site], provider: Literal["hf", "bridge"]
    ) -> None:
        """sites: all sources and targets. Raises SiteError for what the model lacks."""
        tapped = tap(loaded, sites, provider)
        self.tensors = [one.tensor for one in tapped.taps]
        self._logits, self._device = tapped.logits, tapped.device
        self._see: dict[str, Keep] = {}
        # In the order of the forward: `on_stream` relies on it.
        self._handles: list[Handle] = [
            one.attach(partial(self._dispatch, one.tensor)) for one in tapped.taps
        ]

    def clean(self, ids_CT: Tensor) -> tuple[Tensor, Tensors]:
        """Logits [C, T, vocabulary] and all tensors, nothing replaced."""
        kept: Tensors = {}

        def keep(name: str, tensor: Tensor) -> None:
            kept[name] = tensor

        logits = self._run(ids_CT, {name: partial(keep, name) for name in self.tensors})
        if silent := [name for name in self.tensors if name not in kept]:
            raise SiteError(f"{silent[0]} exists in this model but stayed silent in a forward pass")
        return logits, kept

    def edited(
        self, ids_CT: Tensor, replacements: Sequence[Replacement], clean: Tensors
    ) -> tuple[Tensor, bool]:
        """Logits with these tensors replaced, each at most once; and whether every source was
        live. A source that the model computes after the target is taken from the clean pass."""
        seen: Tensors = {}
        live = True

        def see(name: str, tensor: Tensor) -> Tensor | None:
            nonlocal live
            new = None
            for one in of_target[name]:
                assert new is None, f"{name} is replaced twice"
                live &= one.source.tensor in seen
                source = seen.get(one.source.tensor, clean[one.source.tensor])
                new = _replaced(tensor, source, one)
            seen[name] = tensor if new is None else new
            return new

        of_target: dict[str, list[Replacement]] = defaultdict(list)
        for replacement in replacements:
            of_target[replacement.target.tensor].append(replacement)
        wanted = {site.tensor for one in replacements for site in (one.source, one.target)}
        logits = self._run(ids_CT, {name: partial(see, name) for name in wanted})
        return logits, live

    def close(self) -> None:
        """Take the hooks out of the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _dispatch(self, name: str, tensor: Tensor) -> Tensor | None:
        see = self._see.get(name)
        return None if see is None else see(tensor)

    @torch.no_grad()
    def _run(self, ids_CT: Tensor, see: dict[str, Keep]) -> Tensor:
        self._see = see
        try:
            return self._logits(ids_CT.to(self._device))
        finally:
            self._see = {}


def check_spliceable(target: Site) -> None:
    """Raises SiteError for a target that nothing can take the place of."""
    if target.kind == "ln2_normalized":
        raise SiteError(
            f"{target} is a step within a norm, which only its own weight reads; it cannot be "
            "replaced by itself"
        )


def _replaced(tensor_CTD: Tensor, source_CTD: Tensor, one: Replacement) -> Tensor:
    rows_CT = one.rows_CT.to(tensor_CTD.device)
    new_CTD = tensor_CTD.clone()
    predicted = one.predict(source_CTD[rows_CT], tensor_CTD[rows_CT])
    new_CTD[rows_CT] = predicted.to(tensor_CTD.dtype)
    return new_CTD
