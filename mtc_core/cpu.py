"""What kind of CPU this is. Without torch: a plan asks, too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_INFO = Path("/proc/cpuinfo")
_FIELDS = re.compile(r"^(vendor_id|cpu family|model name|flags)\s*: (.*)$", re.M)
_VECTORS = frozenset({"avx2", "avx512f"})


@dataclass(frozen=True, slots=True)
class Cpu:
    """As Linux tells it; all empty where nobody knows. family: AMD's is 25 for Zen 3 and 4, 26 for
    Zen 5."""

    name: str = ""
    vendor: str = ""
    family: int = 0
    flags: frozenset[str] = frozenset()

    @property
    def has_avx512(self) -> bool:
        return "avx512f" in self.flags

    @property
    def multiplies_bfloat16(self) -> bool:
        """Whether it does: else a product in bfloat16 takes longer than one in float32."""
        return "avx512_bf16" in self.flags

    @property
    def prefers_onednn(self) -> bool:
        """Whether oneDNN's products in float32 are faster than MKL's: mtc_core/onednn.py."""
        return self.vendor == "AuthenticAMD" and not _VECTORS.isdisjoint(self.flags)


UNKNOWN = Cpu()


def this_cpu() -> Cpu:
    try:
        first = _INFO.read_text(encoding="utf-8").split("\n\n", 1)[0]  # all cores are alike
    except OSError:  # not Linux
        return UNKNOWN
    fields = dict(_FIELDS.findall(first))
    family = fields.get("cpu family", "")
    return Cpu(
        name=fields.get("model name", ""),
        vendor=fields.get("vendor_id", ""),
        family=int(family) if family.isdecimal() else 0,
        flags=frozenset(fields.get("flags", "").split()),
    )
