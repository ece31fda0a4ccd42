"""Train one transcoder from any iterator of rows: the notebook's way. No manifest, no model.

B rows of a step · I, O source and target widths
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from mtc_core.config import TrainConfig, TranscoderSpec
from mtc_core.errors import ConfigError, DataError
from mtc_core.held_out import HeldOut
from mtc_core.statistics import measure_pair
from mtc_core.trainer import StepReport, TranscoderTrainer
from mtc_core.transcoder import MatryoshkaTranscoder

Rows = Iterable[tuple[Tensor, Tensor]]


def fit(
    rows: Rows,
    spec: TranscoderSpec,
    train: TrainConfig,
    *,
    calibration: tuple[Tensor, Tensor] | None = None,
    start: MatryoshkaTranscoder | None = None,
    device: str = "cpu",
    on_step: Callable[[int, StepReport], None] | None = None,
) -> MatryoshkaTranscoder:
    """Train on pairs (x [n, d_in], y [n, d_out]) of any n, in the order given.

    The rows should come shuffled; the first `train.block_rows` of them give the statistics, and
    are drawn even where training needs fewer. `calibration` rows, which training does not see, set
    the inference threshold so that mean L0 is k; without them the last training batch does.
    `start`: a transcoder of the same sites and sizes whose weights training starts from.
    `on_step(step, report)` is called after every step. Raises DataError if the rows end before
    `train.tokens`, or calibration has none.
    """
    if train.steps < 1:
        raise ConfigError(f"tokens = {train.tokens} is below batch_tokens = {train.batch_tokens}")
    if calibration is not None and not len(calibration[0]):  # before hours of training
        raise DataError(
            "calibration has no rows to set the threshold from; leave it out, or give some"
        )
    batches = rebatch(rows, train.batch_tokens)
    first = _first_batches(batches, train)
    trainer = _begin(first, spec, train, start, device)
    if calibration is not None:
        _check_widths(calibration, trainer)
    for step, (x_BI, y_BO) in zip(range(train.steps), _chain(first, batches), strict=False):
        report = trainer.step(x_BI.to(device), y_BO.to(device))
        if on_step is not None:
            on_step(step, report)
    if trainer.step_index < train.steps:
        raise DataError(
            f"the rows ended after {trainer.step_index * train.batch_tokens:,} of "
            f"{train.tokens:,}; lower tokens, or let the iterator repeat"
        )
    trainer.learner.watch.check()  # of the steps since it was last asked
    # Never the average of the batches' cuts, which lags: after 40 steps L0 was 13 for a k of 8.
    return _finished(trainer, calibration or (x_BI, y_BO), device)


def rebatch(rows: Rows, batch_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a stream of row pairs into pairs of exactly `batch_tokens`; a short rest is dropped."""
    parts: list[tuple[Tensor, Tensor]] = []
    held = 0
    for x, y in rows:
        if x.dim() != 2 or y.dim() != 2 or x.shape[0] != y.shape[0]:
            raise DataError(
                f"rows must be pairs of [n, d_in] and [n, d_out], found {list(x.shape)} and "
                f"{list(y.shape)}"
            )
        widths = (x.shape[1], y.shape[1])
        if parts and widths != (before := tuple(side.shape[1] for side in parts[0])):
            raise DataError(f"rows are {widths} wide, and the rows before them {before}")
        # Whoever keeps a pair would keep the graph of the model that made it as well.
        parts.append((x.detach(), y.detach()))
        held += x.shape[0]
        if held < batch_tokens:
            continue
        x_all, y_all = (torch.cat(side) for side in zip(*parts, strict=True))
        whole = held - held % batch_tokens
        yield from zip(
            x_all[:whole].split(batch_tokens), y_all[:whole].split(batch_tokens), strict=True
        )
        parts, held = [(x_all[whole:], y_all[whole:])], held - whole


def _first_batches(
    batches: Iterator[tuple[Tensor, Tensor]], train: TrainConfig
) -> list[tuple[Tensor, Tensor]]:
    first = list(islice(batches, train.block_batches))
    if not first:
        raise DataError(f"the rows ended before one batch of {train.batch_tokens:,}")
    return first


def _begin(
    first: list[tuple[Tensor, Tensor]],
    spec: TranscoderSpec,
    train: TrainConfig,
    start: MatryoshkaTranscoder | None,
    device: str,
) -> TranscoderTrainer:
    if start and (
        (start.spec.source, start.spec.target, start.spec.group_sizes, start.spec.skip)
        != (spec.source, spec.target, spec.group_sizes, spec.skip)
    ):
        raise ConfigError(
            f"start is of {start.spec.id}, and {spec.id} needs the same sites, group_sizes and skip"
        )
    x_NI, y_NO = (torch.cat(side).to(device) for side in zip(*first, strict=True))
    weights = start.state_dict() if start else None
    return TranscoderTrainer(spec, train, measure_pair(x_NI, y_NO), device=device, start=weights)


def _check_widths(calibration: tuple[Tensor, Tensor], trainer: TranscoderTrainer) -> None:
    if any(side.dim() != 2 for side in calibration) or len(calibration[0]) != len(calibration[1]):
        shapes = " and ".join(str(list(side.shape)) for side in calibration)
        raise DataError(f"calibration must be a pair of [n, d_in] and [n, d_out], found {shapes}")
    wanted = (trainer.weights.W_enc.shape[1], trainer.weights.W_dec.shape[1])
    found = (calibration[0].shape[-1], calibration[1].shape[-1])
    if found != wanted:
        raise DataError(f"calibration rows are {found} wide, and the training rows {wanted}")


def _chain(
    first: list[tuple[Tensor, Tensor]], rest: Iterator[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor]]:
    while first:  # emptied, so that the block's memory is free for the rest of the run
        yield first.pop(0)
    yield from rest


def _finished(
    trainer: TranscoderTrainer, calibration: tuple[Tensor, Tensor], device: str
) -> MatryoshkaTranscoder:
    x_BI, y_BO = (side.to(device) for side in calibration)
    held_out = HeldOut(trainer, x_BI.shape[0])
    held_out.calibrate(x_BI, y_BO)
    held_out.settle()
    return held_out.transcoder
