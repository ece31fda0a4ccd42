"""One forward and one step of each transcoder on made-up rows, before any text is read.

A hook that the model lacks, and memory that does not suffice, then show in seconds instead of
after an hour of tokenizing. Nothing that is trained later is touched.

C contexts · T positions · N rows of the made-up contexts · D width of a site
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from mtc_core.capture import Capture
from mtc_core.errors import TrainingStopped
from mtc_core.statistics import measure_pair
from mtc_core.trainer import TranscoderTrainer
from orchestrator.cells.transcoder_run import TranscoderRun

CONTEXTS = 2


def rehearse(
    capture: Capture, runs: Sequence[TranscoderRun], vocab_size: int, context_tokens: int
) -> None:
    """Try them all. Raises SiteError, or what torch raises for want of memory."""
    if not runs:
        return
    # Ids spread over the vocabulary, so that rows differ; no generator is asked.
    ids_CT = torch.arange(CONTEXTS * context_tokens).view(CONTEXTS, -1) * 7919 % vocab_size
    rows = {name: acts_CTD.flatten(0, 1) for name, acts_CTD in capture(ids_CT).items()}
    for run in runs:
        _try_step(run, rows[run.spec.source.tensor], rows[run.spec.target.tensor])


def _try_step(run: TranscoderRun, x_ND: Tensor, y_ND: Tensor) -> None:
    whole_batch = torch.arange(run.train.batch_tokens, device=x_ND.device) % x_ND.shape[0]
    with suppress(TrainingStopped):  # such rows say nothing about real ones
        trainer = TranscoderTrainer(
            run.spec,
            run.train,
            measure_pair(x_ND, y_ND),
            device=run.device,
            workspace=run.workspace,
        )
        trainer.step(x_ND[whole_batch], y_ND[whole_batch])
