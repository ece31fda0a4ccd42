"""Measure a finished suite: reconstruction on a text of the user's, and predictions, spliced.

subject -> text -> model and suite -> quality -> splice -> results on disk

Deterministic, and resumable: totals are saved between chunks, and go on to the same figures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from mtc_core.capture import make_capture
from mtc_core.errors import MtcError, SiteError, TrainingStopped
from mtc_core.model.model_source import LoadedModel, load_tokenizer
from mtc_core.producer import ActivationProducer
from mtc_core.quality import Quality
from mtc_core.splice.measure import SpliceMeasurement, Stand
from mtc_core.tokens.packing import Contexts
from mtc_core.tokens.tokenizer import TokenizerFacts
from mtc_core.transcoder import MatryoshkaTranscoder
from orchestrator.cells.memory_errors import memory_errors
from orchestrator.evaluating.listener import Listener
from orchestrator.evaluating.results import QUALITY, SPLICE, Progress, Results
from orchestrator.evaluating.subject import Subject
from orchestrator.evaluating.texts import (
    EvaluationText,
    contexts_digest,
    held_test_half,
    own_text,
    spread,
)
from orchestrator.manifest import contexts_of
from orchestrator.run_folder.folder import RunFolder

ADVICE = "end what else uses it, or measure where there is more memory (resources.device)"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """text: a path as of data.path; None: the test half. tokens: scored positions to splice, about.
    prefixes: splice each prefix, too. patience_s: give up where splicing would take longer."""

    text: str | None = None
    tokens: int
    prefixes: bool = True
    patience_s: float | None = None


class TooSlow(Exception):
    """Splicing would take longer than somebody was ready to wait: seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def evaluate(run: RunFolder, wanted: Wanted, listener: Listener) -> Results:
    """Measure what has not been measured yet. Raises MtcError, TooSlow, and what `check` raises;
    then the same call goes on where it stopped."""
    subject = Subject.of(run)
    torch.set_num_threads(subject.threads)
    text = _text(subject, wanted, listener)
    results = Results(run.evaluations / text.name)
    wanted = _no_less(results, wanted, subject)
    contexts = spread(text.contexts, wanted.tokens)
    asked = _request(subject, text, contexts, wanted)
    missing = [name for name, request in asked.items() if not _done(results, name, request)]
    if missing:
        results.check_writable()
        subject.check_memory()
        with memory_errors("eval", subject.device, ADVICE):
            _measure(subject, text, contexts, wanted, results, asked, missing, listener)
    return results


def _measure(
    subject: Subject,
    text: EvaluationText,
    contexts: Contexts,
    wanted: Wanted,
    results: Results,
    asked: dict[str, dict[str, Any]],
    missing: list[str],
    listener: Listener,
) -> None:
    listener.progress("loading the model and the suite", 0.0, None)
    model = subject.load_model()
    suite, left_out = subject.load_suite()
    listener.check()
    if QUALITY in missing:
        progress = Progress(results, QUALITY, asked[QUALITY])
        found = reconstruct(subject, model, suite, text.contexts, listener, progress)
        found |= {id: {"problem": reason} for id, reason in left_out.items()}
        results.write(QUALITY, {**asked[QUALITY], "text": text.to_dict(), "transcoders": found})
        progress.forget()
    if SPLICE in missing:
        progress = Progress(results, SPLICE, asked[SPLICE])
        found = _splice(subject, model, suite, contexts, wanted, progress, listener)
        found["left_out"] |= left_out
        results.write(SPLICE, {**asked[SPLICE], "text": text.to_dict(), **found})
        progress.forget()


def _text(subject: Subject, wanted: Wanted, listener: Listener) -> EvaluationText:
    if wanted.text is None:
        return held_test_half(subject.run)
    model = subject.manifest.model
    tokenizer = load_tokenizer(
        model.name, subject.pins["model"], trust_remote_code=model.trust_remote_code
    )
    facts = TokenizerFacts.from_hf(tokenizer)
    return own_text(wanted.text, subject.manifest.data.config(), facts, listener.say)


def _request(
    subject: Subject, text: EvaluationText, contexts: Contexts, wanted: Wanted
) -> dict[str, dict[str, Any]]:
    """What decides a result, by its file."""
    same = {
        "weights": subject.weights(),
        "threads": subject.threads,
        "device": subject.device.partition(":")[0],
    }
    spliced = {
        **same,
        "contexts": contexts_digest(contexts),
        "asked_tokens": wanted.tokens,
        "prefixes": wanted.prefixes,
    }
    # Of the test half the trainers have measured it.
    quality = {QUALITY: {**same, "contexts": contexts_digest(text.contexts)}} if wanted.text else {}
    return {**quality, SPLICE: spliced}


def _no_less(results: Results, wanted: Wanted, subject: Subject) -> Wanted:
    """At least what is there already of these weights: a larger measurement is not replaced by a
    smaller one."""
    found = results.read(SPLICE)
    if found is None or found["weights"] != subject.weights():
        return wanted
    tokens = max(wanted.tokens, int(found.get("asked_tokens", 0)))
    return replace(wanted, tokens=tokens, prefixes=wanted.prefixes or bool(found.get("prefixes")))


def _done(results: Results, name: str, request: dict[str, Any]) -> bool:
    found = results.read(name)
    return found is not None and request == {key: found.get(key) for key in request}


def reconstruct(
    subject: Subject,
    model: LoadedModel,
    suite: dict[str, MatryoshkaTranscoder],
    contexts: Contexts,
    listener: Listener,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What `Quality` says of each transcoder on these contexts, by its key. They need not be those
    of the run. progress: where an interrupted one goes on."""
    sites = [site for tc in suite.values() for site in (tc.spec.source, tc.spec.target)]
    capture = make_capture(model, sites, subject.pins["provider"])
    batch = contexts_of(subject.manifest)
    producer = ActivationProducer(capture, None, forward_contexts=batch, device=subject.device)
    kept = {id: Quality(tc) for id, tc in suite.items()}
    passes, first = -(-len(contexts.ids_CT) // batch), 0
    if progress and (saved := progress.read()):
        first = int(saved["passes"])
        listener.say("goes on where it was interrupted")
        for id, quality in kept.items():
            quality.load(_of(saved, id))
    left = _tensors(contexts, first * batch)
    rows = producer.rows(*left) if first < passes else iter(())
    for done, part in enumerate(_told("reconstructing", rows, passes - first, listener), start=1):
        for id, tc in suite.items():
            kept[id].add(part[tc.spec.source.tensor], part[tc.spec.target.tensor])
        if progress and progress.due:
            states = {f"{id}/{k}": v for id, q in kept.items() for k, v in q.state().items()}
            progress.save({"passes": torch.tensor(first + done), **states})
    capture.close()
    return {id: _summary(quality) for id, quality in kept.items()}


def _of(saved: dict[str, torch.Tensor], id: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(f"{id}/"): v for k, v in saved.items() if k.startswith(f"{id}/")}


def _summary(quality: Quality) -> dict[str, Any]:
    try:
        return quality.summary()
    except TrainingStopped as error:  # this text says nothing of this transcoder
        return {"problem": str(error)}


def _splice(
    subject: Subject,
    model: LoadedModel,
    suite: dict[str, MatryoshkaTranscoder],
    contexts: Contexts,
    wanted: Wanted,
    progress: Progress,
    listener: Listener,
) -> dict[str, Any]:
    stands, left_out = _stands(suite, wanted.prefixes)
    if not stands:
        return {"tokens": 0, "transcoders": {}, "joint": None, "left_out": left_out}
    measurement = SpliceMeasurement(model, stands, subject.pins["provider"])
    if saved := progress.read():
        measurement.load({name: value.to(subject.device) for name, value in saved.items()})
        listener.say("goes on where it was interrupted")
    ids_CT, rows_CT = _tensors(contexts)
    steps = measurement.run(ids_CT, rows_CT)
    passes = measurement.passes(*ids_CT.shape)
    chunks = measurement.chunks_done
    try:
        for _ in _told("splicing", steps, passes, listener, wanted.patience_s):
            if measurement.chunks_done > chunks and progress.due:
                chunks = measurement.chunks_done
                progress.save(measurement.state())
    except BaseException:
        if measurement.chunks_done:
            with suppress(MtcError):  # why it ended is what counts
                progress.save(measurement.state())
        raise
    finally:
        measurement.close()
    found = measurement.summary()
    return {**found, "left_out": {**left_out, **found["left_out"]}}


def _told(
    what: str,
    parts: Iterator[T],
    count: int,
    listener: Listener,
    patience_s: float | None = None,
) -> Iterator[T]:
    """The parts, while somebody is told how far they are. Raises TooSlow."""
    began = time.monotonic()
    for done, part in enumerate(parts, start=1):
        yield part
        spent = time.monotonic() - began
        whole = spent / done * count
        # The first two may be slow for other reasons.
        if patience_s is not None and done > 2 and whole > patience_s:
            raise TooSlow(whole)
        listener.progress(what, done / count, whole - spent)
        listener.check()


def _stands(
    suite: dict[str, MatryoshkaTranscoder], prefixes: bool
) -> tuple[dict[str, Stand], dict[str, str]]:
    """What can be spliced, and why the others cannot."""
    stands, left_out = {}, {}
    for id, tc in suite.items():
        try:
            stands[id] = Stand.of(tc, prefixes)
        except SiteError as error:
            left_out[id] = str(error)
    return stands, left_out


def _tensors(contexts: Contexts, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    # Copies: the arrays may be read-only maps of files, which torch cannot take.
    ids_CT = torch.from_numpy(contexts.ids_CT[first:].astype("int64"))
    return ids_CT, torch.from_numpy(contexts.rows_CT[first:].astype(bool))
