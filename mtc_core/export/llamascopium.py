"""llamascopium (OpenMOSS): a folder a transcoder, as JumpReLU with the logarithm of its threshold.

    <id>/config.json
    <id>/sae_weights.safetensors   W_E [D, F]  b_E  W_D [F, D]  b_D
                                   activation_function.log_jumprelu_threshold [F]

With `norm_activation: inference` it takes raw activations, and no average norms beside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import save_file

from mtc_core.atomic import write_json_atomic
from mtc_core.export.facts import (
    Format,
    Suite,
    SuiteFacts,
    provenance,
    same_hooks,
    same_width,
    threshold,
    without_skip,
)


def _problems(suite: Suite, facts: SuiteFacts) -> Iterator[str]:
    yield from without_skip(suite, "llamascopium")
    yield from same_width(suite, "llamascopium")
    yield from same_hooks(suite, facts, "llamascopium")


def _write(suite: Suite, facts: SuiteFacts, folder: Path, lossy: Mapping[str, str | None]) -> None:
    for id, tc in suite.items():
        place = folder / id
        place.mkdir()
        tensors = {
            "W_E": tc.W_enc.T,
            "b_E": tc.b_enc,
            "W_D": tc.W_dec,
            "b_D": tc.b_dec,
            "activation_function.log_jumprelu_threshold": threshold(tc).log(),
        }
        whole = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
        save_file(whole, place / "sae_weights.safetensors")
        config = {
            "sae_type": "sae",
            "hook_point_in": tc.spec.source.hook,
            "hook_point_out": tc.spec.target.hook,
            "use_glu_encoder": False,
            "d_model": tc.d_in,
            "expansion_factor": _expansion(tc.d_in, tc.d_sae),
            "use_decoder_bias": True,
            "act_fn": "jumprelu",
            "norm_activation": "inference",
            "sparsity_include_decoder_norm": False,
            "top_k": tc.spec.k,
            "use_triton_kernel": False,
            "sparsity_threshold_for_triton_spmm_kernel": 0.996,
            "jumprelu_threshold_window": 2.0,
        }
        write_json_atomic(place / "config.json", config)
        write_json_atomic(place / "mtc.json", provenance(id, tc, lossy[id]))


def _expansion(d_in: int, d_sae: int) -> float:
    """A factor from which it gets d_sae back: it takes int(d_in * factor)."""
    factor = d_sae / d_in
    while int(d_in * factor) < d_sae:
        factor = math.nextafter(factor, math.inf)
    assert int(d_in * factor) == d_sae
    return factor


_HOW_TO_LOAD = """\
```python
from llamascopium import SparseAutoEncoder

tc = SparseAutoEncoder.from_pretrained("{place}/{id}")
```
"""
LLAMASCOPIUM = Format("batchtopk", _problems, _write, _HOW_TO_LOAD)
