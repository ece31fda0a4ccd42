"""How much of each kind of work a device does in a second: what predictions are made of.

Of CPUs, one core of two that were measured: kinds of work by benchmarks/rates.py, what several
threads and processes cost each other by benchmarks/topologies.py. Another CPU may be twice as fast
or half, which changes tokens/s but hardly the comparison. Of GPUs, their published peaks times what
an H200 reached of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mtc_core.cpu import Cpu

ZEN5_FAMILY = 26
# Two threads do 1.77 times the forward of one, and 1.62 times the steps.
_FORWARD_EXPONENT, _STEP_EXPONENT = 0.82, 0.70


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Per second: FLOPs of a forward pass, of other matrix products, and on gathered rows; bytes of
    passes over memory; bytes that one process publishes. sieve_flops: of encoders' products where a
    sieve does instead (mtc_core/kernels/sieve.py), encoder_flops: of the others, where they are not
    as other products; None where there is no such thing. step_s, pass_s: of each step
    of a transcoder and of each forward pass, whatever their size."""

    forward_flops: float
    dense_flops: float
    sparse_flops: float
    bytes: float
    published_bytes: float
    step_s: float
    pass_s: float
    sieve_flops: float | None = None
    encoder_flops: float | None = None

    def with_threads(self, threads: int) -> Rates:
        """Of a CPU process with so many, out of those with one."""
        times = threads**_STEP_EXPONENT
        return replace(
            self,
            forward_flops=self.forward_flops * threads**_FORWARD_EXPONENT,
            dense_flops=self.dense_flops * times,
            sieve_flops=self.sieve_flops and self.sieve_flops * times,
            encoder_flops=self.encoder_flops and self.encoder_flops * times,
            sparse_flops=self.sparse_flops * times,
            bytes=self.bytes * times,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Core:
    """One core of a CPU, in float32, by our kernels (rates) and by torch's own (plain; measured or
    guessed). half_: FLOPs in bfloat16, of a forward, and of encoders' products that no sieve does,
    ours and torch's; None where nobody measured them."""

    rates: Rates
    plain: Rates
    plain_measured: bool = True
    half_forward: float | None = None
    half_encoder: float | None = None
    half_plain_encoder: float | None = None

    def of(self, model_dtype: str, dtype: str, plain: bool) -> tuple[Rates, bool]:
        """The rates of a run in these dtypes, and whether all that it takes was measured."""
        rates, known = (self.plain, self.plain_measured) if plain else (self.rates, True)
        if model_dtype != "float32":
            known &= model_dtype == "bfloat16" and self.half_forward is not None
            rates = replace(rates, forward_flops=self.half_forward or rates.forward_flops)
        if dtype != "float32":
            encoder = self.half_plain_encoder if plain else self.half_encoder
            known &= encoder is not None or rates.sieve_flops is not None
            rates = replace(rates, encoder_flops=encoder)
        return rates, known


def _by_torch(rates: Rates, forward_flops: float, dense_flops: float) -> Rates:
    """Of `train.kernels: torch`: its products, and its loops by what a Zen 5 does of them."""
    return replace(
        rates,
        forward_flops=forward_flops,
        dense_flops=dense_flops,
        sieve_flops=None,
        sparse_flops=0.62 * rates.sparse_flops,
        bytes=0.77 * rates.bytes,
    )


# AMD's EPYCs: the forward by oneDNN, encoders by a sieve.
_ZEN5_RATES = Rates(
    forward_flops=196e9,  # 211e9 by itself, without a run around it
    dense_flops=255e9,
    sieve_flops=480e9,
    sparse_flops=31e9,
    bytes=21.6e9,
    published_bytes=1.2e9,
    step_s=0.0013,
    pass_s=0.0104,
)
_ZEN5 = _Core(
    rates=_ZEN5_RATES,
    plain=_by_torch(_ZEN5_RATES, forward_flops=94e9, dense_flops=102e9),
    half_forward=348e9,
    half_encoder=470e9,
    half_plain_encoder=194e9,
)
# As its kinds of work were in a busy hour, 1.15 and 1.6 times as fast: so long took the forward
# passes and the steps of six transcoders in a quiet one. A forward was 1.29 times as slow by torch,
# and 1.75 times as fast in bfloat16.
_ZEN4_RATES = Rates(
    forward_flops=100e9,
    dense_flops=118e9,
    sieve_flops=208e9,
    sparse_flops=34e9,
    bytes=18.5e9,
    published_bytes=1.2e9,
    step_s=0.0020,
    pass_s=0.0151,
)
_ZEN4 = _Core(
    rates=_ZEN4_RATES,
    plain=_by_torch(_ZEN4_RATES, forward_flops=78e9, dense_flops=118e9),
    plain_measured=False,
    half_forward=190e9,
)
_XEON_RATES = Rates(
    forward_flops=121e9,  # 131e9 by itself
    dense_flops=124e9,
    sparse_flops=14e9,
    bytes=7.3e9,
    published_bytes=1.2e9,
    step_s=0.0034,
    pass_s=0.0191,
)
# torch's library is what we take there, too.
_XEON = _Core(
    rates=_XEON_RATES,
    plain=_by_torch(_XEON_RATES, _XEON_RATES.forward_flops, _XEON_RATES.dense_flops),
    plain_measured=False,
)
# A Zen 4 in that hour, by MKL and without a sieve.
_OTHER_RATES = Rates(
    forward_flops=75e9,
    dense_flops=74e9,
    sparse_flops=21e9,
    bytes=11.6e9,
    published_bytes=1.2e9,
    step_s=0.0032,
    pass_s=0.0117,
)
_OTHER = _Core(
    rates=_OTHER_RATES,
    plain=_by_torch(_OTHER_RATES, _OTHER_RATES.forward_flops, _OTHER_RATES.dense_flops),
    plain_measured=False,
)

# Published peaks: bf16 products without sparsity, float32 ones (torch does not use TF32 unless it
# is told to), and memory.
_GPUS = {
    "H200": (989e12, 67e12, 4.8e12),
    "H100": (989e12, 67e12, 3.35e12),
    "A100": (312e12, 19.5e12, 2.0e12),
    "L40S": (362e12, 91.6e12, 0.86e12),
    "A10G": (70e12, 31e12, 0.6e12),
    "L4": (121e12, 30e12, 0.3e12),
    "T4": (65e12, 8.1e12, 0.3e12),
    "4090": (165e12, 82.6e12, 1.0e12),
    "3090": (71e12, 35.6e12, 0.94e12),
}
_OF_PEAK_FLOPS, _OF_PEAK_BYTES = 0.80, 0.90  # an H200: 790 TFLOP/s and 4.3 TB/s

# How much longer all takes where there are more threads than cores: of several threads, the others
# wait for the one that is put off, but no longer keep its core from it (kernels/spinning.py).
CROWDED, CROWDED_THREADS = 1.25, 1.1

# Nobody has told of the network: 25 Gb/s, so that split has to be worth it on an ordinary one.
NETWORK_BYTES = 3.1e9
NODE_STORE_BYTES = 6e9  # that all producers of a node together put into its object store


def core_rates(cpu: Cpu, model_dtype: str, dtype: str, plain: bool) -> tuple[Rates, bool]:
    """Of one core, for a forward and products in these dtypes, by torch's own kernels (plain) or by
    ours; and whether such a run was measured on such a CPU."""
    core = _OTHER
    if cpu.has_avx512 and "AMD EPYC" in cpu.name:
        core = _ZEN5 if cpu.family >= ZEN5_FAMILY else _ZEN4
    elif cpu.has_avx512 and "Intel(R) Xeon(R)" in cpu.name:
        core = _XEON
    rates, known = core.of(model_dtype, dtype, plain)
    return rates, known and core is not _OTHER


def gpu_rates(name: str, dtype: str) -> tuple[Rates, bool]:
    """Of a GPU by its name, for products in that dtype, and whether it is one of those known; the
    others are taken for an A100."""
    words = re.split(r"[^0-9A-Za-z]+", name)
    known = next((_GPUS[word] for word in words if word in _GPUS), None)
    halves, singles, bytes = known or _GPUS["A100"]
    flops = _OF_PEAK_FLOPS * (singles if dtype == "float32" else halves)
    bytes *= _OF_PEAK_BYTES
    rates = Rates(
        forward_flops=flops,
        dense_flops=flops,
        sparse_flops=bytes / 2,  # a gathered float32 gives two FLOPs for four bytes
        bytes=bytes,
        published_bytes=2e9,  # through the memory of the host
        step_s=0.0005,
        pass_s=0.003,  # launches: Python and torch alone take a Zen 5 1.7 ms for GPT-2 small's
    )
    return rates, known is not None
