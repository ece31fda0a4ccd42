"""Suggested sizes: exact sums and growing groups for any width, bad input refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtc_core import Site, TranscoderSpec, suggest_group_sizes, suggest_k
from mtc_core.errors import ConfigError
from mtc_core.model.model_shape import ModelShape

SHAPES = Path(__file__).parents[2] / "orchestrator" / "shapes.json"
MODELS = json.loads(SHAPES.read_text())


@pytest.mark.parametrize(
    ("d_in", "sizes"),
    [
        (768, (768, 1536, 3072, 6912)),
        (2304, (2304, 4608, 9216, 20736)),
        (1, (1, 2, 4, 9)),
    ],
)
def test_groups_are_1_2_4_and_9_times_the_width(d_in: int, sizes: tuple[int, ...]) -> None:
    assert suggest_group_sizes(d_in) == sizes


@pytest.mark.parametrize("model", MODELS)
def test_every_known_model_has_sizes_that_can_be_trained(model: str) -> None:
    width = ModelShape.from_config(MODELS[model]).d_model
    sizes = suggest_group_sizes(width)
    assert sizes == (width, 2 * width, 4 * width, 9 * width)
    TranscoderSpec(
        source=Site.parse("0.resid_pre"),
        target=Site.parse("0.mlp_out"),
        group_sizes=sizes,
        k=suggest_k(sum(sizes)),
    )


@given(d_in=st.integers(1, 100_000), expansion=st.integers(1, 64))
def test_sizes_sum_to_the_expansion_and_grow(d_in: int, expansion: int) -> None:
    if d_in * expansion < 16:
        with pytest.raises(ConfigError, match="too few latents for four growing groups"):
            suggest_group_sizes(d_in, expansion)
        return
    sizes = suggest_group_sizes(d_in, expansion)
    assert sum(sizes) == d_in * expansion and len(sizes) == 4
    assert 0 < sizes[0] < sizes[1] < sizes[2] < sizes[3]
    for size, share in zip(sizes[:3], (1, 2, 4), strict=True):
        assert size == d_in * expansion * share // 16


@given(hundredths=st.integers(1, 6400), hundreds=st.integers(1, 100))
def test_an_expansion_means_its_digits(hundredths: int, hundreds: int) -> None:
    """1000 × 0.57 is 569.9999999999999 in floating point."""
    if hundredths * hundreds >= 16:
        sizes = suggest_group_sizes(100 * hundreds, hundredths / 100)
        assert sum(sizes) == hundredths * hundreds


BAD: list[tuple[Any, Any, str]] = [
    (0, 16, "d_in must be a whole number of at least 1, found 0"),
    (-768, 16, "d_in must be a whole number of at least 1, found -768"),
    (768.0, 16, "d_in must be a whole number of at least 1, found 768.0"),
    (True, 16, "d_in must be a whole number of at least 1, found True"),
    (768, 0, "expansion must be a number above 0, found 0"),
    (768, -1.5, "expansion must be a number above 0, found -1.5"),
    (768, float("nan"), "expansion must be a number above 0, found nan"),
    (768, float("inf"), "expansion must be a number above 0, found inf"),
    (768, "16", "expansion must be a number above 0, found '16'"),
    (768, True, "expansion must be a number above 0, found True"),
    (768, 1.1, "1.1 x 768 is 844.8, no whole number of latents; give another expansion"),
    (7, 2, "2 x 7 is 14, too few latents for four growing groups; give an expansion with at "
     "least 16"),
]  # fmt: skip


@pytest.mark.parametrize(("d_in", "expansion", "told"), BAD)
def test_bad_sizes_are_refused(d_in: Any, expansion: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        suggest_group_sizes(d_in, expansion)
    assert str(caught.value) == told


@given(d_sae=st.integers(1, 10**7))
def test_k_is_one_latent_in_two_hundred(d_sae: int) -> None:
    k = suggest_k(d_sae)
    assert 1 <= k <= d_sae
    assert k == 1 or k * 200 <= d_sae < (k + 1) * 200


def test_k_of_the_guides_example() -> None:
    assert suggest_k(12_288) == 61


@pytest.mark.parametrize("d_sae", [0, -1, 1.0, True, None])
def test_bad_d_sae_is_refused(d_sae: Any) -> None:
    with pytest.raises(ConfigError, match="d_sae must be a whole number of at least 1"):
        suggest_k(d_sae)
