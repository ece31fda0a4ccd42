"""From scheduled contexts to rows of activations: one forward pass for every transcoder.

A block's rows land in the order in which steps consume them, each distinct tensor once however
many transcoders read it. What a block holds depends on the manifest and its number alone.

C contexts · T positions · R rows of a block · D width of a site
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.profiler import record_function

from mtc_core.capture import Capture
from mtc_core.capture.forward import Take
from mtc_core.tokens.schedule import Block

Activations = dict[str, Tensor]  # Site.tensor -> [rows, D]


class Schedule(Protocol):
    """Whatever numbers blocks: see mtc_core.tokens.schedule.Schedule."""

    def block(self, b: int) -> Block: ...


class ActivationProducer:
    """Runs the model over blocks and holdout contexts, `forward_contexts` at a time."""

    def __init__(
        self,
        capture: Capture,
        schedule: Schedule | None,
        *,
        forward_contexts: int,
        device: str | torch.device = "cpu",
    ) -> None:
        """schedule: what numbers blocks; None where there are only `rows`."""
        self.capture = capture
        self.schedule = schedule
        self.forward_contexts = forward_contexts
        self.device = torch.device(device)
        self.forwards = 0
        self.tokens_forwarded = 0
        self.activations: Activations = {}

    def block(self, b: int) -> Activations:
        """Rows of block b in training order. The tensors are reused by the next call."""
        for _ in self.forward_block(b):
            pass
        return self.activations

    def forward_block(self, b: int, into: Activations | None = None) -> Iterator[None]:
        """The same in steps of one forward pass each; afterwards the rows are in `into`, whose
        tensors are used again, or in `activations`."""
        into = self.activations if into is None else into
        assert self.schedule is not None, "blocks need a schedule"
        block = self.schedule.block(b)
        ids_CT, flat_R = torch.from_numpy(block.ids_CT), torch.from_numpy(block.flat_rows)
        place = torch.full((ids_CT.numel(),), -1, dtype=torch.int64)
        place[flat_R] = torch.arange(flat_R.numel())
        for chunk_CT, place_N in zip(
            ids_CT.split(self.forward_contexts),
            place.split(self.forward_contexts * ids_CT.shape[1]),
            strict=True,
        ):
            here_N = self._there((place_N >= 0).nonzero().squeeze(1))
            there_N = self._there(place_N[place_N >= 0])
            self._forward(chunk_CT, partial(_into, into, flat_R.numel(), here_N, there_N))
            yield

    def rows(self, ids_CT: Tensor, rows_CT: Tensor) -> Iterator[Activations]:
        """Rows of given contexts in reading order, one dictionary per forward pass."""
        chunks = zip(
            ids_CT.split(self.forward_contexts), rows_CT.split(self.forward_contexts), strict=True
        )
        for chunk_CT, mask_CT in chunks:
            here_N = self._there(mask_CT.flatten().nonzero().squeeze(1))
            rows: Activations = {}
            self._forward(chunk_CT, partial(_select, rows, here_N))
            yield rows

    def _forward(self, ids_CT: Tensor, take: Take) -> None:
        self.forwards += 1
        self.tokens_forwarded += ids_CT.numel()
        with record_function("mtc.forward"):
            self.capture.each(self._there(ids_CT.long()), take)

    def _there(self, tensor: Tensor) -> Tensor:
        """On the producer's device. From pinned memory, else a GPU's work would first have to be
        waited for."""
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _select(rows: Activations, here_N: Tensor, name: str, acts_CTD: Tensor) -> None:
    """Some rows of a pass, as a tensor of their own."""
    rows[name] = acts_CTD.flatten(0, 1).index_select(0, here_N)


def _into(
    block: Activations, n_rows: int, here_N: Tensor, there_N: Tensor, name: str, acts_CTD: Tensor
) -> None:
    """Some rows of a pass, to their places among those of a block."""
    rows_ND = acts_CTD.flatten(0, 1)
    buffer_RD = _buffer(block, name, n_rows, rows_ND)
    buffer_RD.index_copy_(0, there_N, rows_ND.index_select(0, here_N))


def _buffer(buffers: Activations, name: str, n_rows: int, like_ND: Tensor) -> Tensor:
    if name not in buffers:
        buffers[name] = like_ND.new_empty(n_rows, like_ND.shape[1])
    return buffers[name]
