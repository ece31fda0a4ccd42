"""One forward of the model over a text, for the studies of all transcoders."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtc_core.capture import make_capture
from mtc_core.features.study import FeatureStudy
from mtc_core.model.model_source import LoadedModel
from mtc_core.tokens.packing import Contexts
from orchestrator.evaluating.listener import Listener
from orchestrator.evaluating.subject import Subject
from orchestrator.manifest import contexts_of


@dataclass(slots=True)
class Reading:
    """A study, and how many extreme rows it was not given; None where they are rows like others.

    Where training left extreme rows out (train.extreme: mask), what a transcoder says of them means
    nothing: on layers 2 and 3 of the quickstart the same dozen rows were the strongest contexts of
    hundreds of latents."""

    study: FeatureStudy
    extreme_rows: int | None


def readings(subject: Subject, studies: Mapping[str, FeatureStudy]) -> dict[str, Reading]:
    """Before anything is read. A transcoder without a reference cannot tell extreme rows."""
    masked = subject.manifest.train.extreme == "mask"
    return {
        id: Reading(study, 0 if masked and study.transcoder.reference is not None else None)
        for id, study in studies.items()
    }


def read_text(
    subject: Subject,
    model: LoadedModel,
    studied: Mapping[str, Reading],
    contexts: Contexts,
    listener: Listener,
) -> None:
    """Feed all of them. Raises what `check` raises."""
    specs = [reading.study.transcoder.spec for reading in studied.values()]
    sites = [site for spec in specs for site in (spec.source, spec.target)]
    capture = make_capture(model, sites, subject.pins["provider"])
    batch, count = contexts_of(subject.manifest), len(contexts.ids_CT)
    began = time.monotonic()
    for first in range(0, count, batch):
        # Copies: the arrays may be read-only maps of files, which torch cannot take.
        ids_CT = torch.from_numpy(contexts.ids_CT[first : first + batch].astype("int64"))
        rows_CT = torch.from_numpy(np.array(contexts.rows_CT[first : first + batch]))
        acts = capture(ids_CT)
        rows = rows_CT.to(subject.device).nonzero(as_tuple=True)
        for reading in studied.values():
            _feed(reading, acts, rows, first)
            listener.check()
        share = min(1.0, (first + batch) / count)
        spent = time.monotonic() - began
        listener.progress("reading the text", share, spent / share - spent)
    capture.close()


def _feed(
    reading: Reading, acts: Mapping[str, Tensor], rows: tuple[Tensor, ...], first: int
) -> None:
    tc = reading.study.transcoder
    context_B, position_B = rows
    x_BI = acts[tc.spec.source.tensor][context_B, position_B]
    if reading.extreme_rows is not None:
        assert tc.reference is not None
        y_BO = acts[tc.spec.target.tensor][context_B, position_B]
        ordinary_B = ~tc.reference.is_extreme(x_BI, y_BO)
        x_BI, context_B, position_B = (side[ordinary_B] for side in (x_BI, context_B, position_B))
        reading.extreme_rows += len(ordinary_B) - len(x_BI)
    if len(x_BI):
        reading.study.add(x_BI, context_B + first, position_B)
