"""One forward pass that hands over the tensors of some sites and stops at the last of them.

C contexts · T positions of a context · D width of a site

A provider knows where a model's tensors are and prepares it as a `Tapped`; `Capture` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtc_core.errors import SiteError
from mtc_core.model.model_shape import ModelShape
from mtc_core.sites import Site

Take = Callable[[str, Tensor], None]  # a tensor by its name
Keep = Callable[[Tensor], Tensor | None]  # what it returns takes the tensor's place; None leaves it


class Handle(Protocol):
    """A hook in place, as torch returns it."""

    def remove(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Tap:
    """A tensor by its `Site.tensor` name, and how to hook it: `attach` calls `keep` with the
    tensor whenever the model computes it, and has everything that reads it read what `keep`
    returns, if it does."""

    tensor: str
    attach: Callable[[Keep], Handle]


@dataclass(frozen=True, slots=True)
class Tapped:
    """A model prepared by a provider. `run` makes a forward of ids [C, T] through all blocks,
    `logits` one that ends in logits [C, T, vocabulary]."""

    run: Callable[[Tensor], Any]
    logits: Callable[[Tensor], Tensor]
    taps: Sequence[Tap]
    blocks: Sequence[nn.Module]
    unembedding: nn.Module | None
    device: torch.device


@dataclass(frozen=True, slots=True)
class ForwardCounts:
    """How often modules were entered: the first block, the deepest one needed, the unembedding."""

    first_block: int = 0
    last_block: int = 0
    unembedding: int = 0


class _Complete(BaseException):
    """Everything wanted is here: leave the forward.

    Not an Exception, so that no handler for errors in a model's code mistakes it for one."""


class Capture:
    """Callable on token ids. Its hooks do nothing except during its own calls, so several may
    share a model, and the model stays usable for everything else."""

    def __init__(self, model: Tapped, sites: Sequence[Site], shape: ModelShape) -> None:
        self.tensors: tuple[str, ...] = tuple(tap.tensor for tap in model.taps)
        self._run, self._device = model.run, model.device
        self._widths = {site.tensor: shape.width(site) for site in sites}
        self._take: Take | None = None
        self._ids_shape = torch.Size()
        self._seen: set[str] = set()
        self._wrong = ""
        self._counts = {"first_block": 0, "last_block": 0, "unembedding": 0}
        self._handles: list[Handle] = []
        counted = {"unembedding": model.unembedding}
        if model.blocks:
            deepest = _deepest_block(self.tensors, len(model.blocks))
            counted |= {"first_block": model.blocks[0], "last_block": model.blocks[deepest]}
        for name, module in counted.items():
            if module is not None:
                self._handles.append(module.register_forward_pre_hook(self._count_into(name)))
        self._handles += [tap.attach(self._keep_as(tap.tensor)) for tap in model.taps]

    def __call__(self, ids_CT: Tensor) -> dict[str, Tensor]:
        """Tensors [C, T, D] by `Site.tensor`, for int64 ids without padding: see `each`."""
        kept: dict[str, Tensor] = {}
        self.each(ids_CT, kept.__setitem__)
        return {name: kept[name] for name in self.tensors}

    def each(self, ids_CT: Tensor, take: Take) -> None:
        """Have each tensor [C, T, D] taken as the model computes it: one that is not kept is gone
        when the model has read it, and all of them are as large as many layers' work.

        They carry no gradient and nothing writes to them afterwards. Raises SiteError for a hook
        that stays silent or whose tensor is not [batch, position, width].
        """
        assert ids_CT.ndim == 2 and ids_CT.dtype == torch.int64, (ids_CT.shape, ids_CT.dtype)
        assert self._handles, "this capture is closed"
        self._take, self._ids_shape, self._wrong = take, ids_CT.shape, ""
        self._seen.clear()
        try:
            with torch.no_grad():
                self._run(ids_CT.to(self._device))
        except _Complete:
            pass
        finally:
            self._take = None
        if self._wrong:
            raise SiteError(self._wrong)
        for name in self.tensors:
            if name not in self._seen:
                raise SiteError(f"{name} exists in this model but stayed silent in a forward pass")

    @property
    def widths(self) -> dict[str, int | None]:
        """D of each tensor; None for hooks that we do not name ourselves, until the first call."""
        return dict(self._widths)

    @property
    def counts(self) -> ForwardCounts:
        """What this capture's calls have run so far."""
        return ForwardCounts(**self._counts)

    def close(self) -> None:
        """Take the hooks out of the model. The capture cannot be called again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _keep_as(self, name: str) -> Keep:
        def keep(tensor: Tensor) -> None:
            # No clone: the blocks of every family we know add to the residual stream out of
            # place, so nothing overwrites the tensor (a test watches its version counter).
            if self._take is None:
                return
            if wrong := self._wrong_shape(name, tensor):
                self._wrong = wrong
                raise _Complete
            self._take(name, tensor)
            self._seen.add(name)
            if len(self._seen) == len(self.tensors):
                raise _Complete  # a new one each time: its traceback holds the whole forward

        return keep

    def _count_into(self, name: str) -> Callable[..., None]:
        def count(module: nn.Module, args: Any) -> None:
            if self._take is not None:
                self._counts[name] += 1

        return count

    def _wrong_shape(self, name: str, tensor: Tensor) -> str:
        """What is wrong with it; else its width is known from now on."""
        width = self._widths[name]
        right = tensor.ndim == 3 and tensor.shape[:2] == self._ids_shape
        if right and tensor.shape[2] == (width or tensor.shape[2]):
            self._widths[name] = tensor.shape[2]
            return ""
        wanted = (*self._ids_shape, width or "width")
        return (
            f"{name} has shape {_show(tensor.shape)}; a site needs [batch, position, width], "
            f"here {_show(wanted)}"
        )


def _deepest_block(tensors: Iterable[str], n_blocks: int) -> int:
    """Index of the last block that must be entered to compute the tensors."""
    sites = [Site.parse(name) for name in tensors]
    return max(
        site.layer if site.layer is not None else (0 if site.depth < (0, 0) else n_blocks - 1)
        for site in sites
    )


def _show(shape: Iterable[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"
