"""One rule for randomness: every generator is seeded by what it is for.

Never by a position in a list, a worker number or an earlier draw, so that a transcoder trained
alone and in a suite of a hundred starts from the same bits. Loads without torch.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(*parts: Any) -> str:
    """Hex sha256 of JSON-able parts; equal parts give equal digests on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_of(*parts: Any) -> int:
    """A 63-bit seed for `torch.Generator.manual_seed` from (seed, id, purpose, …)."""
    return int(digest(*parts)[:16], 16) >> 1
