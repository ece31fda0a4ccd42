"""Rows of a model in Python: what `run` trains on, for `fit`, without a manifest.

    rows = activation_rows("gpt2", "my.txt", "8.resid_mid", "8.mlp_out")
    tc = fit(rows, spec, train, calibration=rows.held_out("calibration"))

With the same text, seed and block size they are the rows of a run, in its order. R rows of a block
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mtc_core.capture import make_capture
from mtc_core.errors import ConfigError
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.producer import ActivationProducer, Activations
from mtc_core.sites import Site
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.holdout import Half
from mtc_core.tokens.schedule import Schedule, rows_to_store
from mtc_core.tokens.token_writer import TokenWriter
from mtc_core.tokens.tokenizer import TokenizerFacts

BLOCK_ROWS = 32_768  # of a manifest's defaults: 4 batches of 8192


def activation_rows(
    model: str | LoadedModel,
    text: str | DataConfig,
    source: str | Site,
    target: str | Site,
    *,
    seed: int = 0,
    block_rows: int = BLOCK_ROWS,
    forward_contexts: int = 16,
    device: str = "cpu",
    provider: Literal["auto", "hf", "bridge"] = "auto",
    tokens: Path | str | None = None,
) -> ActivationRows:
    """Rows of two sites of a model over a text, which is read as far as they are asked for.

    model: what a manifest calls `model.name`, or a loaded one (which stays on its own device).
    text: `data.path`, or all of its settings. tokens: a folder to keep token ids in, so that the
    next time finds them; else they go when the rows do. Raises MtcError for what cannot be read.
    """
    ends = tuple(end if isinstance(end, Site) else Site.parse(end) for end in (source, target))
    loaded = load_model(model, device=device) if isinstance(model, str) else model
    data = _settings(text, loaded.shape.max_context)
    capture = make_capture(loaded, ends, provider)
    folder = Path(tokens or tempfile.mkdtemp(prefix="mtc-tokens-"))
    try:
        writer = TokenWriter(
            folder, data, TokenizerFacts.from_hf(loaded.tokenizer, loaded.shape.vocab_size)
        )
        producer = ActivationProducer(
            capture,
            Schedule(writer.store, seed, block_rows),
            forward_contexts=forward_contexts,
            device=loaded.model.device,
        )
        rows = ActivationRows(ends[0], ends[1], writer, producer, block_rows)
    except BaseException:
        _forget(folder, tokens is None)
        raise
    weakref.finalize(rows, _forget, folder, tokens is None)
    return rows


class ActivationRows:
    """Pairs (x [R, d_in], y [R, d_out]) of shuffled rows, without end: a text that has ended is
    read again. Each loop over them begins at the first."""

    def __init__(
        self,
        source: Site,
        target: Site,
        writer: TokenWriter,
        producer: ActivationProducer,
        block_rows: int,
    ) -> None:
        self.source, self.target = source, target
        self._writer, self._producer, self._block_rows = writer, producer, block_rows

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for b in count():
            context = self._writer.data.context_tokens
            self._writer.ensure(rows_to_store(b + 1, self._block_rows, context))
            block: Activations = {}  # of its own: whoever has the last one may keep it
            for _ in self._producer.forward_block(b, block):
                pass
            yield self._pair(block)

    def held_out(self, half: Half) -> tuple[Tensor, Tensor]:
        """All rows of text that no loop gives: `calibration` for thresholds, `test` for figures."""
        store = self._writer.ensure(1)
        contexts = store.holdout(half)
        ids_CT = torch.from_numpy(contexts.ids_CT.astype("int64"))
        rows_CT = torch.from_numpy(contexts.rows_CT.copy())
        parts = [self._pair(part) for part in self._producer.rows(ids_CT, rows_CT)]
        x_RI, y_RO = (torch.cat(side) for side in zip(*parts, strict=True))
        return x_RI, y_RO

    @property
    def d_in(self) -> int:
        """Width of the source."""
        return self._width(self.source)

    @property
    def d_out(self) -> int:
        """Width of the target."""
        return self._width(self.target)

    def _width(self, site: Site) -> int:
        capture = self._producer.capture
        if capture.widths[site.tensor] is None:  # a hook that we do not name: one forward tells
            capture(torch.zeros(1, 1, dtype=torch.int64))
        width = capture.widths[site.tensor]
        assert width is not None
        return width

    def _pair(self, activations: Activations) -> tuple[Tensor, Tensor]:
        return activations[self.source.tensor], activations[self.target.tensor]


def _settings(text: str | DataConfig, most: int | None) -> DataConfig:
    """most: positions that the model has. Raises ConfigError for longer contexts."""
    if not isinstance(text, DataConfig):
        short = DataConfig(path=text)
        return replace(short, context_tokens=min(short.context_tokens, most or sys.maxsize))
    if most and text.context_tokens > most:
        raise ConfigError(
            f"context_tokens = {text.context_tokens} is more than the {most} positions that the "
            "model has; lower it"
        )
    return text


def _forget(folder: Path, ours: bool) -> None:
    if ours:
        shutil.rmtree(folder, ignore_errors=True)
