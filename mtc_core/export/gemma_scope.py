"""Gemma Scope's `params.npz`, a folder a transcoder: JumpReLU, W_enc [D, F].

<id>/params.npz   W_enc [D, F]  W_dec [F, O]  b_enc  b_dec  threshold
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtc_core.atomic import write_json_atomic
from mtc_core.export.facts import Format, Suite, SuiteFacts, provenance, threshold, without_skip


def _problems(suite: Suite, facts: SuiteFacts) -> Iterator[str]:
    yield from without_skip(suite, "params.npz")


def _write(suite: Suite, facts: SuiteFacts, folder: Path, lossy: Mapping[str, str | None]) -> None:
    for id, tc in suite.items():
        (folder / id).mkdir()
        tensors = {
            "W_enc": tc.W_enc.T,
            "W_dec": tc.W_dec,
            "b_enc": tc.b_enc,
            "b_dec": tc.b_dec,
            "threshold": threshold(tc),
        }
        arrays: dict[str, Any] = {
            name: np.ascontiguousarray(value.detach().float().cpu().numpy())
            for name, value in tensors.items()
        }
        np.savez(folder / id / "params.npz", **arrays)
        write_json_atomic(folder / id / "mtc.json", provenance(id, tc, lossy[id]))


_HOW_TO_LOAD = """\
```python
import numpy as np

params = np.load("{place}/{id}/params.npz")
pre = x @ params["W_enc"] + params["b_enc"]
a = pre * (pre > params["threshold"])
y = a @ params["W_dec"] + params["b_dec"]
```
"""
GEMMA_SCOPE = Format("batchtopk", _problems, _write, _HOW_TO_LOAD)
