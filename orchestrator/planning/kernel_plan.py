"""What computes the steps and the matrix products of a run, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mtc_core.config import TranscoderSpec
from mtc_core.cpu import Cpu
from mtc_core.kernels.choose import pinned_kernels, resolve_kernels
from orchestrator.manifest import Manifest
from orchestrator.planning.layout import Layout


def kernels_of(manifest: Manifest, layout: Layout) -> str:
    """`numba`, `torch` or `triton`; several where cells have several kinds of devices."""
    wanted = manifest.train.config().kernels
    return " and ".join(sorted({resolve_kernels(wanted, cell.device) for cell in layout.cells}))


def products_of(
    manifest: Manifest, specs: Sequence[TranscoderSpec], layout: Layout, cpu: Cpu
) -> tuple[str, ...]:
    """Which matrix products are not torch's own choice: those of kernels that are not torch's, on
    a CPU."""
    devices = {producer.device for producer in layout.producers}
    devices |= {cell.device for cell in layout.cells}
    if devices != {"cpu"} or pinned_kernels(manifest.train.config().kernels) == "torch":
        return ()
    return tuple(_products(manifest, specs, cpu))


def _products(manifest: Manifest, specs: Sequence[TranscoderSpec], cpu: Cpu) -> Iterator[str]:
    train = manifest.train.config()
    if cpu.prefers_onednn and "float32" in (manifest.model.dtype, train.dtype):
        yield "float32 by oneDNN"
    sieved = sum(spec.takes_few(train.extreme) for spec in specs)
    if cpu.multiplies_bfloat16 and sieved and resolve_kernels(train.kernels) == "numba":
        which = f"{sieved} of {len(specs)} encoders" if sieved < len(specs) else "encoders"
        yield f"{which} by a sieve in bfloat16"
