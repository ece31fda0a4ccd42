"""The folder of one transcoder read into rows.

Its state goes by which files are there: final/ says done, failed.json failed, a checkpoint or a
logged step training. Paths are strings, for a suite has thousands of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from mtc_core.checkpoint import DIGESTS, FACTS, STATE, STEP
from mtc_core.config import TranscoderSpec
from orchestrator.registry.rows import (
    CheckpointRow,
    EvaluationRow,
    Facts,
    PopulationRow,
    PrefixRow,
    TrainingRow,
    TranscoderRow,
)
from orchestrator.registry.small_files import (
    Notes,
    as_json,
    number,
    read_last_line,
    read_object,
    text,
)
from orchestrator.run_folder.transcoder_folder import TranscoderFolder

CONFIG, WEIGHTS = "config.json", "weights.safetensors"  # of final/: FORMAT.md
POPULATIONS = ("ordinary", "all")
_PER_PREFIX = ("fvu_by_prefix", "cosine_by_prefix", "nonzeros_by_group")


def read_transcoder(
    folder: TranscoderFolder,
    id: str,
    spec: TranscoderSpec,
    planned: Mapping[str, Any],
    steps: int,
    facts: Facts,
) -> None:
    """Add everything that the folder says. planned: what plan.json says of it, and its highest
    learning rate."""
    notes, last = Notes(folder.path), None
    checkpoints = _checkpoints(str(folder.checkpoints), id)
    with notes.of_damage():
        last = read_last_line(str(folder.metrics))
    facts.checkpoints.extend(checkpoints)
    if last:
        facts.training.append(_training(id, last))
    step = checkpoints[-1].step if checkpoints else 0
    failure: dict[str, Any] = {}
    digests: dict[str, Any] = {}
    if os.path.isdir(folder.final):
        state, step = "done", steps
        with notes.of_damage():
            _evaluation(id, spec, read_object(folder.evaluation) or {}, facts)
        with notes.of_damage():
            digests = read_object(folder.final / DIGESTS) or {}
    elif os.path.exists(folder.failed):
        state = "failed"
        with notes.of_damage():
            failure = read_object(folder.failed) or {}
        step = number(failure.get("step")) or step
        failure.setdefault("reason", "failed.json does not say why")
    else:
        state = "training" if checkpoints or last else "waiting"
    facts.transcoders.append(
        TranscoderRow(
            id=id,
            **_spec_columns(spec, planned),
            state=state,
            step=step,
            reason=text(failure.get("reason")),
            weights_sha256=text(digests.get(WEIGHTS)),
            damaged=notes.text,
        )
    )


def _spec_columns(spec: TranscoderSpec, planned: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "source": str(spec.source),
        "target": str(spec.target),
        "source_layer": spec.source.layer,
        "target_layer": spec.target.layer,
        "d_in": number(planned.get("d_in")),
        "d_out": number(planned.get("d_out")),
        "d_sae": spec.d_sae,
        "k": spec.k,
        "group_sizes": as_json(spec.group_sizes),
        "selection": spec.selection,
        "seed": spec.seed,
        "lr": planned["lr"],
    }


def _checkpoints(folder: str, id: str) -> list[CheckpointRow]:
    """Oldest first. One that its writer drops meanwhile is left out."""
    try:
        names = sorted(filter(STEP.fullmatch, os.listdir(folder)))
    except FileNotFoundError:
        return []
    rows = []
    for name in names:
        try:
            rows.append(_checkpoint(f"{folder}/{name}", name, id))
        except FileNotFoundError:
            continue
    return rows


def _checkpoint(path: str, name: str, id: str) -> CheckpointRow:
    notes, known, digests = Notes(path), None, None
    with os.scandir(path) as entries:
        size = sum(entry.stat().st_size for entry in entries)
    with notes.of_damage():
        known = read_object(f"{path}/{FACTS}")
    with notes.of_damage():
        digests = read_object(f"{path}/{DIGESTS}")
    if None in (known, digests) and notes.text is None:
        os.stat(path)  # dropped meanwhile, or really without its files
        notes.add(f"{FACTS if known is None else DIGESTS} is missing")
    return CheckpointRow(
        transcoder=id,
        step=int(name.removeprefix("step-")),
        path=f"transcoders/{id}/checkpoints/{name}",
        bytes=size,
        metrics_bytes=number((known or {}).get("metrics_bytes")),
        sha256=text((digests or {}).get(STATE)),
        damaged=notes.text,
    )


def _training(id: str, last: Mapping[str, Any]) -> TrainingRow:
    return TrainingRow(
        transcoder=id,
        step=number(last.get("step")),
        tokens=number(last.get("tokens")),
        loss=number(last.get("loss")),
        fvu=number(last.get("fvu")),
        fvu_by_prefix=as_json(last.get("fvu_by_prefix")),
        l0=number(last.get("l0")),
        dead_share=number(last.get("dead_share")),
        aux=number(last.get("aux")),
        extreme_row_share=number(last.get("extreme_row_share")),
        threshold=number(last.get("threshold")),
        lr=number(last.get("lr")),
    )


def _evaluation(id: str, spec: TranscoderSpec, evaluation: Mapping[str, Any], facts: Facts) -> None:
    if not evaluation:
        return
    facts.evaluations.append(
        EvaluationRow(
            transcoder=id,
            extreme_row_share=number(evaluation.get("extreme_row_share")),
            extreme_variance_share=number(evaluation.get("extreme_variance_share")),
            dead_share=number(evaluation.get("dead_share")),
            dead_after_tokens=number(evaluation.get("dead_after_tokens")),
            threshold=number(evaluation.get("threshold")),
            threshold_ema=number(evaluation.get("threshold_ema")),
            calibration_rows=number(evaluation.get("calibration_rows")),
        )
    )
    for population in POPULATIONS:
        if isinstance(figures := evaluation.get(population), dict):
            facts.populations.append(_population(id, population, figures))
            facts.prefixes.extend(_prefixes(id, population, spec, figures))


def _population(id: str, population: str, figures: Mapping[str, Any]) -> PopulationRow:
    return PopulationRow(
        transcoder=id,
        population=population,
        rows=number(figures.get("rows")),
        fvu=number(figures.get("fvu")),
        fvu_bias_only=number(figures.get("fvu_bias_only")),
        fvu_ridge=number(figures.get("fvu_ridge")),
        l0=number(figures.get("l0")),
        never_fired_share=number(figures.get("never_fired_share")),
        min_prefix_loss=number(figures.get("min_prefix_loss")),
        max_prefix_loss=number(figures.get("max_prefix_loss")),
        figures=as_json(figures) or "",
    )


def _prefixes(
    id: str, population: str, spec: TranscoderSpec, figures: Mapping[str, Any]
) -> Iterator[PrefixRow]:
    columns = [figures.get(name) for name in _PER_PREFIX]
    lists = [column if isinstance(column, list) else [] for column in columns]
    for i, (width, *values) in enumerate(zip_longest(spec.widths, *lists)):
        if i < len(spec.widths):
            yield PrefixRow(id, population, i + 1, width, *map(number, values))
