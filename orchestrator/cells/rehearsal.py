"""One step of each transcoder on made-up rows, before any text is read.

Memory that does not suffice then shows in seconds instead of after an hour of tokenizing. Nothing
that is trained later is touched.

N made-up rows · I, O source and target widths
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from mtc_core.errors import TrainingStopped
from mtc_core.producer import Activations
from mtc_core.statistics import measure_pair
from mtc_core.trainer import TranscoderTrainer
from orchestrator.cells.transcoder_run import TranscoderRun


def rehearse(runs: Sequence[TranscoderRun], rows: Activations) -> None:
    """Try them all. Raises what torch raises for want of memory."""
    for run in runs:
        _try_step(run, rows[run.spec.source.tensor], rows[run.spec.target.tensor])


def _try_step(run: TranscoderRun, x_NI: Tensor, y_NO: Tensor) -> None:
    whole_batch = torch.arange(run.train.batch_tokens, device=x_NI.device) % x_NI.shape[0]
    with suppress(TrainingStopped):  # such rows say nothing about real ones
        trainer = TranscoderTrainer(
            run.spec,
            run.train,
            measure_pair(x_NI, y_NO),
            device=run.device,
            workspace=run.workspace,
        )
        trainer.step(x_NI[whole_batch], y_NO[whole_batch])
