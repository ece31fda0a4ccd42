"""Sites in the spelling of the guide, which is TransformerLens's."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.manifest import expand
from tests.orchestrator.test_from_cfg import SMALL, converted


@pytest.mark.parametrize(
    ("written", "site"),
    [
        ("mlp_in", "3.mlp_in"),
        ("hook_mlp_in", "3.mlp_in"),
        ("ln2.hook_normalized", "3.mlp_in"),  # of GPT-2's LayerNorm
        ("ln2_normalized", "3.mlp_in"),
        ("blocks.3.hook_resid_pre", "3.resid_pre"),
        ("3.attn_out", "3.attn_out"),
        ("hook_resid_post", "3.resid_post"),
        ("mlp.hook_post", "blocks.3.mlp.hook_post"),
    ],
)
def test_sites_in_the_guides_spelling(written: str, site: str, tmp_path: Path) -> None:
    (spec,) = expand(converted(tmp_path, {**SMALL, "source_site": written}), 12)
    assert str(spec.source) == site


def test_the_normalised_stream_of_an_rms_norm_keeps_its_name(tmp_path: Path) -> None:
    cfg = {**SMALL, "model_name": "Llama-3.2-1B", "source_site": "ln2.hook_normalized"}
    (spec,) = expand(converted(tmp_path, cfg), 16)
    assert str(spec.source) == "3.ln2_normalized"
