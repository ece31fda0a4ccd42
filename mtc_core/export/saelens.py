"""SAELens: a folder a transcoder, as JumpReLU; W_enc and W_skip as its loaders want them.

    <id>/cfg.json
    <id>/sae_weights.safetensors   W_enc [D, F]  b_enc  W_dec [F, O]  b_dec  threshold
                                   (W_skip [O, D])

Without `sae_lens_version` its loader takes an old path and drops `hook_name`; with
`apply_b_dec_to_input` it subtracts a bias of the target from the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import save_file

from mtc_core.atomic import write_json_atomic
from mtc_core.export.facts import Format, Suite, SuiteFacts, provenance, same_hooks, threshold

VERSION = "6.54.12"  # whose format this is


def _problems(suite: Suite, facts: SuiteFacts) -> Iterator[str]:
    yield from same_hooks(suite, facts, "SAELens")


def _write(suite: Suite, facts: SuiteFacts, folder: Path, lossy: Mapping[str, str | None]) -> None:
    for id, tc in suite.items():
        place = folder / id
        place.mkdir()
        tensors = {
            "W_enc": tc.W_enc.T,
            "b_enc": tc.b_enc,
            "W_dec": tc.W_dec,
            "b_dec": tc.b_dec,
            "threshold": threshold(tc),
        }
        if tc.W_skip is not None:
            tensors["W_skip"] = tc.W_skip
        whole = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
        save_file(whole, place / "sae_weights.safetensors")
        config = {
            "architecture": f"jumprelu_{'skip_' * tc.spec.skip}transcoder",
            "d_in": tc.d_in,
            "d_sae": tc.d_sae,
            "d_out": tc.d_out,
            "dtype": str(tc.W_enc.dtype).removeprefix("torch."),
            "device": "cpu",
            "apply_b_dec_to_input": False,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {
                "sae_lens_version": VERSION,
                "sae_lens_training_version": None,
                "model_name": facts.model,
                "hook_name": tc.spec.source.hook,
                "hook_name_out": tc.spec.target.hook,
                "prepend_bos": facts.prepend_bos,
                "context_size": facts.context_tokens,
                "dataset_path": facts.data,
                # TransformerLens must neither fold nor centre the weights.
                "model_from_pretrained_kwargs": {
                    "fold_ln": False,
                    "center_writing_weights": False,
                    "center_unembed": False,
                },
                **provenance(id, tc, lossy[id]),
            },
        }
        write_json_atomic(place / "cfg.json", config)


_HOW_TO_LOAD = """\
```python
from sae_lens import SAE

tc = SAE.load_from_disk("{place}/{id}")
```
"""
SAELENS = Format("batchtopk", _problems, _write, _HOW_TO_LOAD)
