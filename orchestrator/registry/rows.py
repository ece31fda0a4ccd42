"""The rows of the registry: a class is a table of index.sqlite, a field a column.

REGISTRY.md says what each means. Lists and objects are JSON text. None: not known (yet).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunRow:
    """The run itself; one row."""

    name: str
    began: float
    model: str
    model_commit: str | None
    dataset: str
    dataset_commit: str | None
    provider: str | None
    seed: int
    tokens: int
    batch_tokens: int
    steps: int
    state: str | None
    step: int | None
    transcoders: int
    done: int
    failed: int
    damaged: str | None


@dataclass(frozen=True, slots=True)
class TranscoderRow:
    """One transcoder of resolved.json, in its order."""

    id: str
    source: str
    target: str
    source_layer: int | None
    target_layer: int | None
    d_in: int | None
    d_out: int | None
    d_sae: int
    k: int
    group_sizes: str
    selection: str
    seed: int
    lr: float
    state: str
    step: int
    reason: str | None
    weights_sha256: str | None
    damaged: str | None


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One checkpoint folder."""

    transcoder: str
    step: int
    path: str
    bytes: int
    metrics_bytes: int | None
    sha256: str | None
    damaged: str | None


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """The last logged step of a transcoder."""

    transcoder: str
    step: int | None
    tokens: int | None
    loss: float | None
    fvu: float | None
    fvu_by_prefix: str | None
    l0: float | None
    dead_share: float | None
    aux: float | None
    extreme_row_share: float | None
    threshold: float | None
    lr: float | None


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """The evaluation of a done transcoder, but for what depends on a population of rows."""

    transcoder: str
    extreme_row_share: float | None
    extreme_variance_share: float | None
    dead_share: float | None
    dead_after_tokens: int | None
    threshold: float | None
    threshold_ema: float | None
    calibration_rows: int | None


@dataclass(frozen=True, slots=True)
class PopulationRow:
    """An evaluation over ordinary rows, or over all; `figures` is the whole of it."""

    transcoder: str
    population: str
    rows: int | None
    fvu: float | None
    fvu_bias_only: float | None
    fvu_ridge: float | None
    l0: float | None
    never_fired_share: float | None
    min_prefix_loss: float | None
    max_prefix_loss: float | None
    figures: str


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """One prefix of an evaluation over a population; nonzeros: of the group that ends it."""

    transcoder: str
    population: str
    prefix: int
    width: int
    fvu: float | None
    cosine: float | None
    nonzeros_share: float | None


@dataclass(frozen=True, slots=True)
class InvocationRow:
    """One invocation of `run`; what has no column is in `at_begin` and `at_end`."""

    number: int
    began: float | None
    ended: float | None
    host: str | None
    pid: int | None
    backend: str | None
    cells: int | None
    exit_code: int | None
    outcome: str | None
    step: int | None
    rows_trained: int | None
    at_begin: str | None
    at_end: str | None
    damaged: str | None


@dataclass(slots=True)
class Facts:
    """Everything that the index says of a run."""

    run: list[RunRow] = field(default_factory=list)
    transcoders: list[TranscoderRow] = field(default_factory=list)
    checkpoints: list[CheckpointRow] = field(default_factory=list)
    training: list[TrainingRow] = field(default_factory=list)
    evaluations: list[EvaluationRow] = field(default_factory=list)
    populations: list[PopulationRow] = field(default_factory=list)
    prefixes: list[PrefixRow] = field(default_factory=list)
    invocations: list[InvocationRow] = field(default_factory=list)


# Table -> its rows, and what tells two of them apart.
TABLES: dict[str, tuple[type, tuple[str, ...]]] = {
    "run": (RunRow, ("name",)),
    "transcoders": (TranscoderRow, ("id",)),
    "checkpoints": (CheckpointRow, ("transcoder", "step")),
    "training": (TrainingRow, ("transcoder",)),
    "evaluations": (EvaluationRow, ("transcoder",)),
    "populations": (PopulationRow, ("transcoder", "population")),
    "prefixes": (PrefixRow, ("transcoder", "population", "prefix")),
    "invocations": (InvocationRow, ("number",)),
}
