"""Tokens per second of a layout, by the cost model of maths.md §10 and the rates of its devices.

A cell forwards and trains, one after the other. Producers and cells work at the same time, so the
slowest of them sets the pace, unless they share a device, or fewer cores than they have threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mtc_core.config import TranscoderSpec
from mtc_core.kernels.choose import resolve_kernels
from orchestrator.manifest import Manifest, contexts_of
from orchestrator.planning.cell_plan import CellPlan, TranscoderPlan
from orchestrator.planning.costs import ROWS_PER_DIMENSION
from orchestrator.planning.inventory import Inventory
from orchestrator.planning.layout import Layout
from orchestrator.planning.placement import device_names
from orchestrator.planning.rates import (
    CROWDED,
    CROWDED_THREADS,
    NETWORK_BYTES,
    NODE_STORE_BYTES,
    Rates,
    core_rates,
    gpu_rates,
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """tokens_per_second of the suite in training, without checkpoints; its slowest process; and
    whether the speed of the devices is known, or only how layouts compare."""

    tokens_per_second: float
    slowest: str
    known: bool


def predict(
    layout: Layout,
    transcoders: Mapping[str, TranscoderPlan],
    manifest: Manifest,
    inventory: Inventory,
) -> Prediction:
    """By the transcoders' plans, under their ids."""
    on_cpu = layout.cells[0].device == "cpu"
    model = _Model(layout, transcoders, manifest, inventory, on_cpu)
    seconds = dict(model.seconds())
    by_device: dict[str, float] = {}
    for name, device, taken in ((n, d, s) for n, (d, s) in seconds.items()):
        place = name if device == "cpu" else device  # processes on a GPU take turns
        by_device[place] = by_device.get(place, 0.0) + taken
    slowest = max(by_device, key=lambda place: by_device[place])
    pace = by_device[slowest]
    crowd = len(seconds) * model.threads
    if on_cpu and model.cores and crowd > model.cores:
        work = sum(taken for _, taken in seconds.values()) * model.threads / model.cores
        if work > pace:
            pace, slowest = work, "the number of cores"
        pace *= CROWDED if model.threads == 1 else CROWDED_THREADS
    if layout.producers:  # cells wait for the first block
        pace += model.first_block_seconds() / manifest.train.tokens
    shipping = _shipping_seconds(layout, inventory) if layout.producers else 0.0
    if shipping > pace:
        return Prediction(1 / shipping, "what carries rows between processes", model.known)
    if slowest.startswith("cuda:"):
        slowest = device_names((slowest,), inventory.node_gpus)
    return Prediction(1 / pace, slowest, model.known)


def _shipping_seconds(layout: Layout, inventory: Inventory) -> float:
    """Per token, of the network, and of the object store of a node. Cells and producers are spread
    evenly, and what a node reads comes from all."""
    assert layout.exchange
    of_tensor = layout.exchange.portion_bytes / layout.exchange.portion_rows
    of_tensor /= len(layout.producers[0].tensors)
    nodes = max(1, len(inventory.node_cpus))
    if inventory.gpus and inventory.node_gpus:
        nodes = -(-len(inventory.gpus) // inventory.node_gpus)
    read = of_tensor * sum(len(cell.tensors) for cell in layout.cells) / nodes
    put = of_tensor * len(layout.producers[0].tensors) / nodes
    network = read * (1 - 1 / nodes) / NETWORK_BYTES
    return max(network, put / NODE_STORE_BYTES)


class _Model:
    """Seconds per token of each process of a layout, alone on its device."""

    def __init__(
        self,
        layout: Layout,
        transcoders: Mapping[str, TranscoderPlan],
        manifest: Manifest,
        inventory: Inventory,
        on_cpu: bool,
    ) -> None:
        self._layout, self._transcoders = layout, transcoders
        self._train = manifest.train.config()
        self._pass_tokens = contexts_of(manifest) * (manifest.data.context_tokens - 1)
        self.threads = layout.placement.threads or 1
        self.cores, self.known = sum(inventory.node_cpus) or inventory.cores, True
        self._forward: dict[str, Rates] = {}  # by device
        self._step: dict[str, Rates] = {}
        for device in layout.placement.devices:
            if on_cpu:
                plain = resolve_kernels(self._train.kernels) == "torch"
                core, self.known = core_rates(
                    inventory.cpu, manifest.model.dtype, manifest.train.dtype, plain
                )
                self._forward[device] = self._step[device] = core.with_threads(self.threads)
                continue
            gpus, index = inventory.gpus, int(device.partition(":")[2])
            name = gpus[index].name if gpus else ""
            self._forward[device], known = gpu_rates(name, manifest.model.dtype)
            self._step[device], _ = gpu_rates(name, manifest.train.dtype)
            self.known &= known

    def seconds(self) -> Iterator[tuple[str, tuple[str, float]]]:
        """By process: its device, and its seconds for each token of the run."""
        layout = self._layout
        for producer in layout.producers:
            assert layout.exchange
            share = 1 / len(layout.producers)
            bytes = layout.exchange.portion_bytes / layout.exchange.portion_rows
            shipping = share * bytes / self._forward[producer.device].published_bytes
            forward = self._forwarding(producer.device, producer.flops_per_token, share)
            yield producer.name, (producer.device, forward + shipping)
        for cell in layout.cells:
            training = self._training(cell)
            if not layout.producers:
                training += self._forwarding(cell.device, cell.forward_flops_per_token, 1.0)
            yield cell.name, (cell.device, training)

    def first_block_seconds(self) -> float:
        """The forward of a block by one producer."""
        producers = self._layout.producers
        flops = sum(producer.flops_per_token for producer in producers)
        return self._forwarding(producers[0].device, flops, 1.0) * self._train.block_rows

    def _forwarding(self, device: str, flops: float, share: float) -> float:
        rates = self._forward[device]
        return flops / rates.forward_flops + share * rates.pass_s / self._pass_tokens

    def _training(self, cell: CellPlan) -> float:
        rates, total = self._step[cell.device], 0.0
        for id in cell.transcoders:
            plan = self._transcoders[id]
            work = plan.cost.work
            total += work.dense_flops / self._product_flops(plan, rates)
            total += self._ridge_flops(plan) / rates.dense_flops
            total += work.sparse_flops / rates.sparse_flops + work.bytes / rates.bytes
            total += rates.step_s / self._train.batch_tokens
        return total

    def _product_flops(self, plan: TranscoderPlan, rates: Rates) -> float:
        """Of the encoder."""
        few = TranscoderSpec.from_dict(plan.spec).takes_few(self._train.extreme)
        return (few and rates.sieve_flops) or rates.encoder_flops or rates.dense_flops

    def _ridge_flops(self, plan: TranscoderPlan) -> float:
        """Of the line that a transcoder is held against, which the first rows determine."""
        share = min(1.0, ROWS_PER_DIMENSION * plan.d_in / self._train.tokens)
        return share * 2 * (plan.d_in + 1) * (plan.d_in + 1 + plan.d_out)
