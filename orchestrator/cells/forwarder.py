"""The model of a cell or a producer, and what it is run over: lots of portions.

C contexts · T positions of a context · D width of a site
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from mtc_core.capture import Capture, make_capture
from mtc_core.errors import ModelError
from mtc_core.model.model_source import LoadedModel, load_model
from mtc_core.producer import ActivationProducer, Activations
from mtc_core.tokens.schedule import Schedule
from mtc_core.tokens.token_store import TokenStore
from orchestrator.cells.job import Forward
from orchestrator.cells.portions import Portions

REHEARSAL_CONTEXTS = 2


@dataclass(slots=True)
class Lot:
    """The rows of one lot, of every distinct tensor. The tensors of a block are used again when
    another block is run into the same Lot."""

    number: int = -1
    portions: range = range(0)
    activations: Activations = field(default_factory=dict)
    batch_tokens: int | None = None  # None: it is one portion

    def rows(self, portion: int) -> Activations:
        """Those of one portion of this lot: views of its tensors."""
        assert portion in self.portions, (portion, self)
        if self.batch_tokens is None:
            return self.activations
        first = (portion - self.portions.start) * self.batch_tokens
        return {name: t[first : first + self.batch_tokens] for name, t in self.activations.items()}


class Forwarder:
    """`load()`, then, once tokens are there, `begin()` and `run()`."""

    def __init__(self, job: Forward, device: str) -> None:
        self.job, self.device = job, device
        self._loaded: LoadedModel | None = None
        self._producer: ActivationProducer | None = None
        self._portions: Portions | None = None

    def load(self) -> None:
        """Raises ModelError, or SiteError for what the model cannot give."""
        job = self.job
        self._loaded = loaded = load_model(**job.model, device=self.device)
        if loaded.commit != job.model_commit:
            raise ModelError(
                f"the weights of {job.model_name} have changed since the run began (were "
                f"{job.model_commit}, now {loaded.commit}); restore them, or start a run with "
                "another name"
            )
        found, planned = ((shape.n_layers, shape.d_model) for shape in (loaded.shape, job.shape))
        if found != planned:
            raise ModelError(
                f"{job.model_name} has {found[0]} layers of width {found[1]}, but was planned "
                f"with {planned[0]} of width {planned[1]}; its entry in orchestrator/shapes.json "
                "is wrong"
            )

    def rehearse(self) -> Activations:
        """Rows of made-up contexts: a hook that the model lacks shows now. Raises SiteError."""
        assert self._loaded is not None, "load() comes first"
        # Ids spread over the vocabulary, so that rows differ; no generator is asked.
        tokens = REHEARSAL_CONTEXTS * self.job.text.context_tokens
        ids_CT = torch.arange(tokens).view(REHEARSAL_CONTEXTS, -1)
        capture = self._capture()
        rows = capture(ids_CT * 7919 % self._loaded.shape.vocab_size)
        capture.close()
        return {name: acts_CTD.flatten(0, 1) for name, acts_CTD in rows.items()}

    def begin(self) -> Portions:
        """Tokens are there: what there is to run over."""
        text = self.job.text
        self._store = TokenStore(text.tokens)
        self._producer = ActivationProducer(
            self._capture(),
            Schedule(self._store, text.seed, text.train.block_rows),
            forward_contexts=text.forward_contexts,
            device=self.device,
        )
        self._portions = Portions.of(self._store, text.train, text.forward_contexts)
        return self._portions

    def run(self, number: int, into: Lot) -> Iterator[None]:
        """Run the model over a lot, in steps of one forward pass each; afterwards `into` is it."""
        assert self._producer is not None and self._portions is not None, "begin() comes first"
        portions = self._portions.of_lot(number)
        into.number, into.portions = -1, range(0)
        if number < self._portions.blocks:
            if into.batch_tokens is None:
                into.activations = {}
            yield from self._producer.forward_block(number, into.activations)
            into.batch_tokens = self.job.text.train.batch_tokens
        else:
            into.activations = self._holdout_rows(portions.start)
            into.batch_tokens = None
            yield
        into.number, into.portions = number, portions

    @property
    def counts(self) -> dict[str, int]:
        """Passes, tokens, and what the hooks counted."""
        if self._producer is None:
            return {}
        return {
            "passes": self._producer.forwards,
            "tokens": self._producer.tokens_forwarded,
            **asdict(self._producer.capture.counts),
        }

    def _holdout_rows(self, portion: int) -> Activations:
        assert self._producer is not None and self._portions is not None
        if portion in self._portions.calibration:
            first = portion - self._portions.calibration.start
            contexts = self._store.holdout("calibration")
        else:
            first = portion - self._portions.test.start
            contexts = self._store.holdout("test")
        size = self.job.text.forward_contexts
        part = slice(first * size, (first + 1) * size)
        # Copies: the store's arrays are read-only maps of files, which torch cannot take.
        ids_CT = torch.from_numpy(contexts.ids_CT[part].astype(np.int64))
        rows_CT = torch.from_numpy(contexts.rows_CT[part].astype(np.bool_))
        (rows,) = self._producer.rows(ids_CT, rows_CT)
        return rows

    def _capture(self) -> Capture:
        assert self._loaded is not None
        return make_capture(self._loaded, self.job.sites, provider=self.job.provider)
