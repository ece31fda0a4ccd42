"""Find what the latents of a finished suite respond to, and write it down.

subject -> text -> one forward for all transcoders -> tables -> records -> pages

A transcoder whose folder is there already, of the same weights and the same request, is left as it
is. Nothing is kept of a search that was interrupted: all of it takes minutes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtc_core.capture.readout import read_out
from mtc_core.errors import ConfigError, ModelError
from mtc_core.features.logits import Readout, why_not_on_stream
from mtc_core.features.study import WORKING_BYTES, FeatureStudy, study_bytes
from mtc_core.model.model_source import LoadedModel, load_tokenizer
from mtc_core.tokens.packing import Contexts
from mtc_core.tokens.pieces import TokenText
from mtc_core.tokens.tokenizer import TokenizerFacts
from orchestrator.cells.memory_errors import memory_errors
from orchestrator.evaluating.listener import Listener
from orchestrator.evaluating.subject import Subject
from orchestrator.evaluating.texts import (
    EvaluationText,
    contexts_digest,
    held_test_half,
    own_text,
)
from orchestrator.features.names import INDEX
from orchestrator.features.reading import read_text, readings
from orchestrator.features.records import Records
from orchestrator.features.written import Written
from orchestrator.run_folder.folder import RunFolder
from orchestrator.sharing.chosen import choose

ADVICE = "name fewer transcoders (ID), lower --contexts or --window, or end what else uses it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """ids: beginnings of ids; none: all. text: a path as of data.path; None: the test half.
    tokens: of the text, at most. contexts: of each latent. window: tokens shown before a peak, and
    after it. out: a folder for all of it; None: in the run folder."""

    ids: Sequence[str] = ()
    text: str | None = None
    tokens: int
    contexts: int
    window: int
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What is there now: its folder, and features.json of each transcoder asked for; those that
    were written just now."""

    folder: Path
    transcoders: dict[str, dict[str, Any]]
    written: tuple[str, ...]
    seconds: float

    @property
    def page(self) -> Path:
        """Where a reader begins."""
        return self.folder / INDEX


def find_features(run: RunFolder, wanted: Wanted, listener: Listener) -> Found:
    """Write what is not there yet. Raises MtcError, and what `check` raises."""
    began = time.monotonic()
    subject = Subject.of(run)
    torch.set_num_threads(subject.threads)
    ids = choose(subject, wanted.ids, called="ID ")
    text = _text(subject, wanted, listener)
    written = Written(wanted.out or run.features / text.name)
    asked = {id: _request(subject, id, text, wanted) for id in ids}
    missing = [id for id in ids if not written.done(id, asked[id])]
    if missing:
        written.check_writable(missing)
        _check_memory(subject, missing, wanted)
        with memory_errors("features", subject.device, ADVICE):
            _find(subject, text, missing, asked, wanted, written, listener)
        written.write_suite(run.path.name, subject.manifest.model.name)
    transcoders = {id: written.read(id) or {} for id in ids}
    return Found(written.folder, transcoders, tuple(missing), time.monotonic() - began)


def _text(subject: Subject, wanted: Wanted, listener: Listener) -> EvaluationText:
    if wanted.text is None:
        half = held_test_half(subject.run)
        return EvaluationText(half.name, None, _first(half.contexts, wanted.tokens))
    model = subject.manifest.model
    tokenizer = load_tokenizer(
        model.name, subject.pins["model"], trust_remote_code=model.trust_remote_code
    )
    data, facts = subject.manifest.data.config(), TokenizerFacts.from_hf(tokenizer)
    return own_text(wanted.text, data, facts, listener.say, most=wanted.tokens)


def _first(contexts: Contexts, tokens: int) -> Contexts:
    """Whole contexts of no more than so many tokens, but one at least."""
    count = max(1, tokens // contexts.ids_CT.shape[1])
    return Contexts(contexts.ids_CT[:count], contexts.rows_CT[:count])


def _request(subject: Subject, id: str, text: EvaluationText, wanted: Wanted) -> dict[str, Any]:
    """What decides a transcoder's features."""
    return {
        "weights": subject.weights()[id],
        "threads": subject.threads,
        "device": subject.device.partition(":")[0],
        "contexts": contexts_digest(text.contexts),
        "strongest": wanted.contexts,
        "window": wanted.window,
    }


def _check_memory(subject: Subject, ids: Sequence[str], wanted: Wanted) -> None:
    """Before anything is loaded. Raises ConfigError."""
    recorded = subject.run.recorded()
    assert recorded is not None
    sizes = [tuple(recorded["specs"][id]["group_sizes"]) for id in ids]
    tables = sum(study_bytes(one, wanted.contexts, wanted.window) for one in sizes)
    needed = subject.needed_bytes(ids) + tables + WORKING_BYTES
    if needed > (free := subject.free_bytes()):
        raise ConfigError(
            f"features needs the model, {len(ids)} transcoders and their tables on one device: "
            f"about {needed / 1e9:.1f} GB on {subject.device}, which has {free / 1e9:.1f} GB free; "
            f"{ADVICE}"
        )


def _find(
    subject: Subject,
    text: EvaluationText,
    ids: Sequence[str],
    asked: dict[str, dict[str, Any]],
    wanted: Wanted,
    written: Written,
    listener: Listener,
) -> None:
    listener.progress("loading the model and the suite", 0.0, None)
    model = subject.load_model()
    suite = {id: subject.load(id, subject.device) for id in ids}
    listener.check()
    studies = {id: FeatureStudy(tc, wanted.contexts, wanted.window) for id, tc in suite.items()}
    studied = readings(subject, studies)
    read_text(subject, model, studied, text.contexts, listener)
    tokens = TokenText(model.tokenizer)
    readout, unknown = _readout(model)
    for done, (id, study) in enumerate(studies.items()):
        listener.progress(f"writing {id}", done / len(studies), None)
        listener.check()
        why_not = why_not_on_stream(study.transcoder.spec.target) or unknown
        records = Records(
            study, text.contexts, tokens, None if why_not else readout, why_not, listener.check
        )
        left_out = studied[id].extreme_rows
        written.write(id, asked[id], text, records, study.transcoder.spec, left_out)


def _readout(model: LoadedModel) -> tuple[Readout | None, str]:
    """Or why there is none."""
    try:
        return read_out(model), ""
    except ModelError as error:
        return None, str(error)
