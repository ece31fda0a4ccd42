"""EleutherAI's sparsify: TopK coders that read a module's input and predict its output.

    layers.3.mlp/cfg.json
    layers.3.mlp/sae.safetensors   encoder.weight [F, D]  encoder.bias  W_dec [F, D]  b_dec (W_skip)

It has no threshold, so that BatchTopK becomes TopK with the k nearest to its mean L0. Defaults of
its loader are wrong for us without a word: `k` (32) and `transcode` (false).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import save_file

from mtc_core.atomic import write_json_atomic
from mtc_core.config import TranscoderSpec
from mtc_core.export.facts import Format, Suite, SuiteFacts, provenance, same_width
from mtc_core.model.model_shape import KNOWN_FAMILIES

# (source, target) by the module below a block that maps one to the other.
MODULES = {("mlp_in", "mlp_out"): ".mlp", ("resid_pre", "resid_post"): ""}
# Its names of blocks are those of transformers' base model. Gemma's mlp_out is a norm further on.
BLOCKS = {"gpt2": "h", "gemma2": None, "gemma3": None}


def _problems(suite: Suite, facts: SuiteFacts) -> Iterator[str]:
    yield from same_width(suite, "sparsify")
    places = [_place(tc.spec, facts) for tc in suite.values()]
    foreign = [tc.spec for tc, at in zip(suite.values(), places, strict=True) if at is None]
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        yield (
            f"{foreign[0].source} -> {foreign[0].target}{more}: sparsify reads the input of a "
            "module and predicts its output, which is mlp_in -> mlp_out (not in Gemma, whose "
            "mlp_out is normalised once more) or resid_pre -> resid_post, in models of "
            f"{', '.join(sorted(KNOWN_FAMILIES))}; train one of these"
        )
    for place, count in Counter(places).items():
        if place and count > 1:
            yield f"{place} has {count} transcoders; choose one for each module (--only)"


def _write(suite: Suite, facts: SuiteFacts, folder: Path, lossy: Mapping[str, str | None]) -> None:
    for id, tc in suite.items():
        name = _place(tc.spec, facts)
        assert name is not None
        place = folder / name
        place.mkdir()
        tensors = {
            "encoder.weight": tc.W_enc,
            "encoder.bias": tc.b_enc,
            "W_dec": tc.W_dec,
            "b_dec": tc.b_dec,
        }
        if tc.W_skip is not None:
            tensors["W_skip"] = tc.W_skip
        whole = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
        save_file(whole, place / "sae.safetensors")
        config = {
            "activation": "topk",
            "expansion_factor": max(1, round(tc.d_sae / tc.d_in)),
            "normalize_decoder": False,
            "num_latents": tc.d_sae,
            "k": tc.spec.k,
            "multi_topk": False,
            "skip_connection": tc.spec.skip,
            "transcode": True,
            "d_in": tc.d_in,
        }
        write_json_atomic(place / "cfg.json", config)
        write_json_atomic(place / "mtc.json", provenance(id, tc, lossy[id]))


def _place(spec: TranscoderSpec, facts: SuiteFacts) -> str | None:
    """`layers.3.mlp`; None where no module maps the source to the target."""
    if spec.source.layer is None or spec.source.layer != spec.target.layer:
        return None
    pair = (spec.source.kind or "", spec.target.kind or "")
    blocks = BLOCKS.get(facts.family, "layers")
    known = facts.family in KNOWN_FAMILIES  # of others neither names nor norms are known
    if not known or pair not in MODULES or (blocks is None and MODULES[pair]):
        return None
    return f"{blocks or 'layers'}.{spec.source.layer}{MODULES[pair]}"


_HOW_TO_LOAD = """\
```python
from sparsify import SparseCoder

coders = SparseCoder.load_many("{place}", local=True)  # by hookpoint
```
"""
SPARSIFY = Format("topk", _problems, _write, _HOW_TO_LOAD)
