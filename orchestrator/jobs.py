"""From an open run to what each of its processes is to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtc_core.config import TranscoderSpec
from mtc_core.model.model_source import is_local, model_description
from mtc_core.places import place
from orchestrator.cells.job import CellJob, Fed, Forward, ProducerJob, Text
from orchestrator.manifest import contexts_of, expand
from orchestrator.planning.cell_plan import distinct_sites, width_of
from orchestrator.prepare import OpenRun, data_of, train_of
from orchestrator.run_folder.init_from import Start


def cell_jobs(run: OpenRun, witness: Path) -> list[CellJob]:
    """One job for each cell of the plan that has anything left to train."""
    unfinished = set(run.unfinished)
    manifest, resources = run.manifest, run.manifest.resources
    specs = {spec.id: spec for spec in expand(manifest, run.shape.n_layers)}
    threads = run.plan.threads
    assert threads is not None, "a run knows its machine"
    starts = {id: Start.from_dict(plain) for id, plain in run.pins.get("init_from", {}).items()}
    provenance = _provenance(run)
    return [
        CellJob(
            name=cell.name,
            device=cell.device,
            memory_bytes=cell.memory_bytes,
            threads=threads,
            gpu_share=cell.gpu_share,
            witness=witness.absolute(),
            specs=tuple(specs[id] for id in cell.transcoders),
            train=train_of(run),
            transcoders=run.folder.transcoders.absolute(),
            feed=_feed(run, [specs[id] for id in cell.transcoders]),
            checkpoint_s=60 * resources.checkpoint_minutes,
            checkpoint_keep=resources.checkpoint_keep,
            provenance=provenance,
            starts={id: starts[id] for id in cell.transcoders if id in starts},
        )
        for cell in run.plan.cells
        if unfinished.intersection(cell.transcoders)
    ]


def producer_jobs(run: OpenRun, cells: Sequence[CellJob], witness: Path) -> list[ProducerJob]:
    """One for each producer of the plan, if there is a cell to feed."""
    threads, exchange = run.plan.threads, run.plan.exchange
    assert threads is not None, "a run knows its machine"
    if not cells or exchange is None:
        return []
    forward = _forward(run, [spec for cell in cells for spec in cell.specs])
    return [
        ProducerJob(
            name=producer.name,
            device=producer.device,
            memory_bytes=producer.memory_bytes,
            threads=threads,
            gpu_share=producer.gpu_share,
            witness=witness.absolute(),
            index=index,
            count=len(run.plan.producers),
            prefetch_steps=exchange.prefetch_steps,
            store_bytes=exchange.store_bytes // len(run.plan.producers),
            forward=forward,
            readers={cell.name: _tensors(cell.specs) for cell in cells},
        )
        for index, producer in enumerate(run.plan.producers)
    ]


def _tensors(specs: Sequence[TranscoderSpec]) -> tuple[str, ...]:
    return tuple(site.tensor for site in distinct_sites(specs))


def _feed(run: OpenRun, specs: Sequence[TranscoderSpec]) -> Forward | Fed:
    if run.plan.exchange is None:
        return _forward(run, specs)
    return Fed(
        producers=len(run.plan.producers),
        prefetch_steps=run.plan.exchange.prefetch_steps,
        widths={site.tensor: width_of(site, run.shape) for site in distinct_sites(specs)},
        text=_text(run),
    )


def _forward(run: OpenRun, specs: Sequence[TranscoderSpec]) -> Forward:
    manifest = run.manifest
    return Forward(
        model_name=manifest.model.name,
        model={
            "name": _absolute(manifest.model.name),
            "revision": run.pins["model"],
            "dtype": manifest.model.dtype,
            "trust_remote_code": manifest.model.trust_remote_code,
            "faster_products": manifest.train.kernels != "torch",
        },
        model_commit=run.pins["model"],
        shape=run.shape,
        provider=run.pins["provider"],
        sites=tuple(distinct_sites(specs)),
        text=_text(run),
    )


def _text(run: OpenRun) -> Text:
    manifest = run.manifest
    return Text(
        tokens=run.folder.tokens.absolute(),
        seed=manifest.seed,
        train=train_of(run),
        context_tokens=manifest.data.context_tokens,
        forward_contexts=contexts_of(manifest),
    )


def _provenance(run: OpenRun) -> dict[str, Any]:
    """Whose weights the transcoders belong to, and what they were trained on, for config.json."""
    manifest = run.manifest
    return {
        "model": {
            "name": manifest.model.name,
            "commit": run.pins["model"],
            "description": model_description(manifest.model.name, run.pins["model"]),
            "dtype": manifest.model.dtype,
            "provider": run.pins["provider"],
        },
        "data": asdict(data_of(run)),
        "train": {**asdict(train_of(run)), "seed": manifest.seed},
    }


def _absolute(model: str) -> str:
    return str(place(model).absolute()) if is_local(model) else model
