"""Replacing the residual stream in the middle of a block.

Two things read `resid_mid`: the norm of the MLP, whose input we hook, and the sum at the end of
the block, which no module shows. What is put in its place differs from it by Δ, and the block's
output by the same Δ, beside what the MLP makes of it; so Δ is added there.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mtc_core.capture.forward import Handle, Keep

Attach = Callable[[Keep], Handle]


def on_stream(attach: Attach, attach_to_end: Attach, keep: Keep) -> Handle:
    """Hook `attach`'s tensor, the stream in the middle of a block whose output `attach_to_end`
    hooks. Must be attached before anything else that reads that output."""
    pending: list[Tensor] = []

    def keep_and_note(tensor: Tensor) -> Tensor | None:
        new = keep(tensor)
        if new is not None:
            pending.append(new - tensor)
        return new

    def add(output: Tensor) -> Tensor | None:
        return output + pending.pop() if pending else None

    return _Both(attach(keep_and_note), attach_to_end(add))


class _Both:
    def __init__(self, *handles: Handle) -> None:
        self._handles = handles

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
