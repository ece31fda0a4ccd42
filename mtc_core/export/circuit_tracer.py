"""circuit-tracer's transcoder set: one file a layer, all layers, one pair of hooks.

    config.yaml
    layer_0.safetensors …   W_enc [F, D]  b_enc  W_dec [F, D]  b_dec  (W_skip [D, D])
                            activation_function.threshold [F]

Attribution loops over all layers of the model, and silently cuts graphs short where the last ones
are missing; a gap in between is a KeyError there. Both are refused here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from safetensors.torch import save_file

from mtc_core.export.facts import (
    Format,
    Suite,
    SuiteFacts,
    hook_in_block,
    provenance,
    same_hooks,
    same_width,
    threshold,
)

# Sites at which circuit-tracer both finds the tensor and cuts the graph rightly.
SOURCES = ("resid_pre", "resid_mid", "ln2_normalized", "mlp_in")


def _problems(suite: Suite, facts: SuiteFacts) -> Iterator[str]:
    specs = [tc.spec for tc in suite.values()]
    pairs = {(spec.source.kind, spec.target.kind) for spec in specs}
    foreign = [s for s in specs if s.source.kind not in SOURCES or s.target.kind != "mlp_out"]
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        yield (
            f"{foreign[0].source} -> {foreign[0].target}{more}: circuit-tracer replaces MLPs; the "
            f"target must be mlp_out, the source one of {', '.join(SOURCES)}"
        )
    if crossing := [spec for spec in specs if spec.source.layer != spec.target.layer]:
        one = crossing[0]
        yield f"{one.source} -> {one.target} crosses layers; a set has one file for each layer"
    if len(pairs) > 1:
        yield "transcoders have different pairs of sites; circuit-tracer takes one pair for all"
    if len(sizes := sorted({spec.d_sae for spec in specs})) > 1:
        yield f"d_sae differs between layers ({', '.join(map(str, sizes))}); it must be the same"
    if len({spec.skip for spec in specs}) > 1:
        yield "some transcoders have a skip connection and some have none; all must be alike"
    layers = Counter(spec.target.layer for spec in specs)
    if twice := [layer for layer, count in layers.items() if count > 1]:
        yield (
            f"layer {twice[0]} has {layers[twice[0]]} transcoders; choose one for each layer "
            "(--only)"
        )
    if missing := [layer for layer in range(facts.n_layers) if layer not in layers]:
        yield (
            f"{len(missing)} of the model's {facts.n_layers} layers have no transcoder (first: "
            f"{missing[0]}); attribution needs every layer: train them (layers: all)"
        )
    yield from same_width(suite, "circuit-tracer")
    yield from same_hooks(suite, facts, "circuit-tracer")


def _write(suite: Suite, facts: SuiteFacts, folder: Path, lossy: Mapping[str, str | None]) -> None:
    for tc in suite.values():
        tensors = {
            name: getattr(tc, name).detach().contiguous().cpu()
            for name in ("W_enc", "b_enc", "W_dec", "b_dec")
        }
        tensors["activation_function.threshold"] = threshold(tc).cpu()
        if tc.W_skip is not None:
            tensors["W_skip"] = tc.W_skip.detach().contiguous().cpu()
        save_file(tensors, folder / f"layer_{tc.spec.target.layer}.safetensors")
    spec = next(iter(suite.values())).spec
    config = {
        "model_kind": "transcoder_set",
        "model_name": facts.model,
        "scan": facts.model,
        "feature_input_hook": hook_in_block(spec.source),
        "feature_output_hook": hook_in_block(spec.target),
        # Not read by circuit-tracer, which hands them on.
        "mtc": {
            f"layer_{tc.spec.target.layer}": provenance(id, tc, lossy[id])
            for id, tc in suite.items()
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")


_HOW_TO_LOAD = """\
```python
from circuit_tracer import ReplacementModel

model = ReplacementModel.from_pretrained("{model}", "{place}")  # an absolute folder
```
"""
CIRCUIT_TRACER = Format("batchtopk", _problems, _write, _HOW_TO_LOAD)
