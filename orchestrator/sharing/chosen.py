"""The transcoders of a run that are to be shared, and what their readers need to know of them."""

from __future__ import annotations

from collections.abc import Sequence

from mtc_core.errors import CheckpointError, ConfigError
from mtc_core.export import SuiteFacts
from mtc_core.export.exporting import Change, Export
from mtc_core.model.model_source import load_tokenizer
from mtc_core.transcoder import MatryoshkaTranscoder
from orchestrator.cells.memory_errors import memory_errors
from orchestrator.evaluating.evaluate import ADVICE, reconstruct
from orchestrator.evaluating.listener import Listener
from orchestrator.evaluating.subject import Subject, without_reference
from orchestrator.evaluating.texts import held_test_half
from orchestrator.model_shapes import find_shape
from orchestrator.sharing.known import data_of


def choose(subject: Subject, only: Sequence[str], called: str = "--only ") -> list[str]:
    """Ids of finished transcoders that begin with one of `only`; all, where it is empty. called:
    how the user gave it. Raises ConfigError for one that none begins with."""
    if not only:
        return list(subject.ids)
    for beginning in only:
        if not any(id.startswith(beginning) for id in subject.ids):
            listed = "".join(f"\n  {id}" for id in subject.ids)
            raise ConfigError(
                f"{called}{beginning}: no finished transcoder of {subject.run.path} begins so:"
                f"{listed}"
            )
    return [id for id in subject.ids if id.startswith(tuple(only))]


def load_chosen(subject: Subject, ids: Sequence[str]) -> dict[str, MatryoshkaTranscoder]:
    """Raises CheckpointError."""
    return {id: subject.load(id) for id in ids}


def facts_of(subject: Subject, model_name: str) -> SuiteFacts:
    """model_name: by which readers load the model. Raises ModelError for a model whose config or
    tokenizer is not to be had."""
    manifest = subject.manifest
    shape = find_shape(manifest.model.name, subject.pins["model"], online=True)
    assert shape is not None
    tokenizer = load_tokenizer(
        manifest.model.name,
        subject.pins["model"],
        trust_remote_code=manifest.model.trust_remote_code,
    )
    return SuiteFacts(
        model=model_name,
        commit=subject.pins["model"],
        family=shape.family,
        n_layers=shape.n_layers,
        context_tokens=manifest.data.context_tokens,
        data=data_of(subject),
        prepend_bos=tokenizer.bos_token_id is not None,
    )


def measure_changes(subject: Subject, export: Export, listener: Listener) -> dict[str, Change]:
    """What each twin of a lossy export costs, on the test half; nothing is run where there is
    none. Raises MtcError."""
    if not export.twins:
        return {}
    for id, tc in export.suite.items():
        if id in export.twins and tc.reference is None:
            raise CheckpointError(without_reference(subject.run.transcoder(id).final))
    listener.progress("measuring what the format cannot hold", 0.0, None)
    subject.check_memory()
    device = subject.device
    before = {id: export.suite[id].to(device) for id in export.twins}
    after = {f"{id}~": twin.to(device) for id, twin in export.twins.items()}
    with memory_errors("export", device, ADVICE):
        contexts = held_test_half(subject.run).contexts
        found = reconstruct(subject, subject.load_model(), {**before, **after}, contexts, listener)
    return {id: _change(found[id], found[f"{id}~"]) for id in before}


def _change(before: dict, after: dict) -> Change:
    if problem := before.get("problem") or after.get("problem"):
        raise ConfigError(f"what is lost cannot be measured: {problem}")
    sides = (before["ordinary"], after["ordinary"])
    l0, fvu = ((sides[0][name], sides[1][name]) for name in ("l0", "fvu"))
    return Change(l0, fvu)
